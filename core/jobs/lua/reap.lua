-- most attempts, the list of notifications, milliseconds that a job waits until a worker is notified again, most refs,
-- lease -> {refs to notify a worker of}, {refs that are over now}
local most, notifications, notify_after, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local lease = tonumber(ARGV[5])
local time, due, over = now(), {}, {}
-- When this was not called for long, Redis was away, and no worker could renew its lease. Each may do so now, once: half a
-- millisecond in the end of a lease says that it was prolonged here, and the worker that renews it takes it away.
local before = tonumber(redis.call('GET', 'hdb:reaped') or '') or time
redis.call('SET', 'hdb:reaped', whole(time), 'PX', 86400000)
local was_away, expired = time - before > lease / 3, {}
local ends = redis.call('ZRANGEBYSCORE', 'hdb:running', '-inf', whole(time), 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #ends, 2 do
  if was_away and tonumber(ends[i + 1]) % 1 == 0 then
    redis.call('ZADD', 'hdb:running', whole(time + lease / 2) .. '.5', ends[i])
  else
    expired[#expired + 1] = ends[i]
  end
end

for _, ref in ipairs(expired) do
  local attempt = number(ref, 'attempt')
  if get(ref, 'state') == 'running' then count(ref, 'expired', get(ref, 'kind') or '') end
  if get(ref, 'state') ~= 'running' then
    redis.call('ZREM', 'hdb:running', ref)
  elseif get(ref, 'cancel') == '1' then
    finish(ref, 'canceled', '', '', '', '{}')
    over[#over + 1] = ref
  elseif attempt >= most then
    local seen = redis.call('HMGET', named('job', ref), 'stage', 'step', 'total')
    local place = seen[1] and seen[1] ~= '' and (' at ' .. seen[1] .. ' step ' .. seen[2] .. ' of ' .. seen[3]) or ''
    finish(ref, 'failed', '', 'attempts-exhausted',
      'The worker went away ' .. whole(attempt) .. ' times, the last time' .. place .. '; it will not be tried again.', '{}')
    over[#over + 1] = ref
  else
    give_back(ref, number(ref, 'created_at'))
    due[#due + 1] = ref
  end
end

local waiting, in_lines = 0, 0
for _, name in ipairs(QUEUES) do
  waiting = waiting + redis.call('ZCARD', 'hdb:queued:' .. name)
end
for _, class in ipairs(CLASSES) do
  for _, member in ipairs(redis.call('ZRANGE', 'hdb:turns:' .. class, 0, -1)) do
    local tenant, needs = string.match(member, '^([^/]+)/(.*)$')
    if tenant then in_lines = in_lines + redis.call('ZCARD', line_of({ tenant = tenant, class = class, needs = needs })) end
  end
end
if waiting ~= in_lines then adopt() end

-- A notification was lost, or there was none: a job was put back for a while, or a worker could not do it.
if #due == 0 and may_notify(notifications, 1) then
  for _, name in ipairs(QUEUES) do
    local first = redis.call('ZRANGEBYSCORE', 'hdb:queued:' .. name, '-inf', whole(time - notify_after), 'LIMIT', 0, 1)[1]
    if name ~= 'test' then due[#due + 1] = first end
  end
end
return { due, over }
