-- kind, ref, lease, most jobs, most rows -> {ref, attempt, fence, ref, attempt, fence, ...}
-- Takes the job that the notification was for, or else the one that has waited longest. On its first attempt a job takes others
-- along that may share its batch, if it is their first attempt as well: a job that brought a worker down runs alone.
-- Items of batches are only taken when nothing else waits, whatever the notification was for, and only among themselves.
local kind, ref, lease, most_jobs, most_rows = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local queue, time, taken, rows = 'hdb:queued:' .. kind, now(), {}, 0

local function oldest()
  return redis.call('ZRANGEBYSCORE', queue, '-inf', whole(time), 'LIMIT', 0, 1)[1]
end

local function take(candidate)
  redis.call('ZREM', queue, candidate)
  redis.call('ZREM', 'hdb:bells', candidate)
  if get(candidate, 'state') ~= 'queued' then return end
  -- Never used before, also when Redis came back empty and does not know the last one: the clock goes on.
  local micros = redis.call('TIME')
  local fence = whole(math.max(number(candidate, 'fence') + 1, micros[1] * 1000000 + micros[2]))
  local attempt = number(candidate, 'attempt') + 1
  redis.call('ZADD', 'hdb:running', whole(time + lease), candidate)
  change(candidate, 'state', 'state', 'running', 'attempt', attempt, 'fence', fence, 'started_at', whole(time), 'rung', 0)
  rows = rows + number(candidate, 'rows')
  for _, value in ipairs({ candidate, whole(attempt), fence }) do taken[#taken + 1] = value end
end

local ready = redis.call('ZSCORE', queue, ref)
if ready and tonumber(ready) <= time then take(ref) end
while #taken == 0 do
  local candidate = oldest()
  if not candidate and kind == 'generate' then
    queue = 'hdb:queued:batch'
    candidate = oldest()
  end
  if not candidate then return taken end
  take(candidate)
end

local group = get(taken[1], 'batch_group')
if taken[2] ~= '1' or not group or group == '' then return taken end
for _, other in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', whole(time), 'LIMIT', 0, 64)) do
  if #taken / 3 >= most_jobs then break end
  local fits = rows + number(other, 'rows') <= most_rows
  if fits and number(other, 'attempt') == 0 and get(other, 'batch_group') == group then take(other) end
end
return taken
