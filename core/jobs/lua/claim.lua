-- kind (test: of test keys; '': any other), ref ('': whoever's turn it is), lease, most jobs, most rows, the worker's format
-- and model ('*': whatever), the list of notifications
-- -> {1 when another worker should be notified, ref, attempt, fence, ref, attempt, fence, ...}
-- The class that is next is the one that had the fewest turns for its weight, and in it the line of a tenant of which the
-- least work was done. A job on its first attempt takes others of its class along that may share its batch, of all
-- tenants in turn, if it is their first attempt as well: a job that brought a worker down runs alone.
local kind, ref, lease, most_jobs, most_rows = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local format, model, notifications = tonumber(ARGV[6]), ARGV[7], ARGV[8]
local time, taken, rows = now(), {}, 0
local AGES, CHUNK = 60000, 64  -- milliseconds of waiting that give a class its weight once more; members read at once

local function is_able(needs)
  local least, wanted = string.match(needs, '^(%d+):(.*)$')
  return least ~= nil and finite(least) <= format and (wanted == '' or model == '*' or wanted == model)
end

-- The lines of a class that this worker can serve, those first of which the least was done; `use` returns true to end.
local function each_line(class, use)
  local turns, from = finite(redis.call('HGET', 'hdb:turns', class)), 0
  while true do
    local found = redis.call('ZRANGE', 'hdb:turns:' .. class, from, from + CHUNK - 1, 'WITHSCORES')
    local kept = 0
    for i = 1, #found, 2 do
      local tenant, needs = string.match(found[i], '^([^/]+)/(.*)$')
      local line = tenant and 'hdb:' .. tenant .. ':line:' .. class .. ':' .. needs
      local done = finite(found[i + 1])
      if not line or (done <= turns and redis.call('ZCARD', line) == 0) then
        redis.call('ZREM', 'hdb:turns:' .. class, found[i])
      else
        kept = kept + 1
        if is_able(needs) and use({ class = class, member = found[i], key = line, done = done }) then return end
      end
    end
    if #found < 2 * CHUNK then return end
    from = from + kept
  end
end

-- The first job of a line that may be claimed and that `fits`, and since when. What is not queued any more is left out.
local function first_of(line, most, fits)
  local found = redis.call('ZRANGEBYSCORE', line.key, '-inf', whole(time), 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #found, 2 do
    if get(found[i], 'state') ~= 'queued' then
      redis.call('ZREM', line.key, found[i])
      redis.call('ZREM', 'hdb:queued:' .. QUEUE_OF[line.class], found[i])
    elseif fits(found[i]) then
      return found[i], finite(found[i + 1])
    end
  end
  if #found == 2 * most and get(found[1], 'state') ~= 'queued' then return first_of(line, most, fits) end
end

local function any() return true end

local function take(candidate)
  leave(candidate)
  -- Never used before, also when Redis came back empty and does not know the last one: the clock goes on.
  local micros = redis.call('TIME')
  local fence = whole(math.max(number(candidate, 'fence') + 1, micros[1] * 1000000 + micros[2]))
  local attempt = number(candidate, 'attempt') + 1
  redis.call('ZADD', 'hdb:running', whole(time + lease), candidate)
  change(candidate, 'state', 'state', 'running', 'attempt', attempt, 'fence', fence, 'started_at', whole(time))
  count(candidate, 'started', get(candidate, 'kind') or '')
  rows = rows + number(candidate, 'rows')
  for _, value in ipairs({ candidate, whole(attempt), fence }) do taken[#taken + 1] = value end
end

-- Take a job of this line, which has had its turn by that.
local function take_from(line, candidate)
  local turns = math.max(line.done, finite(redis.call('HGET', 'hdb:turns', line.class)))
  local work = number(candidate, 'work')
  redis.call('HSET', 'hdb:turns', line.class, exact(turns))
  redis.call('ZADD', 'hdb:turns:' .. line.class, exact(turns + (work > 0 and work or 1)), line.member)
  take(candidate)
end

-- The line and the job that are next; the class has had its turn by that.
local function choose()
  local all, best, least = finite(redis.call('HGET', 'hdb:turns', 'class')), nil, nil
  for _, class in ipairs(CLASSES) do
    local candidate, since, line
    local wanted = (kind == '' and class ~= 'test') or QUEUE_OF[class] == kind
    if wanted or (class == 'batch' and kind == 'generate') then
      each_line(class, function(each)
        candidate, since = first_of(each, CHUNK, any)
        line = each
        return candidate
      end)
    end
    local turn = math.max(all, finite(redis.call('HGET', 'hdb:turns', 'class ' .. class)))
    if candidate and (not least or turn < least) then
      best, least = { line = line, candidate = candidate, since = since, class = class }, turn
    end
  end
  if not best then return end
  local weight = math.min(WEIGHTS[best.class] * (1 + math.max(0, time - best.since) / AGES), WEIGHTS.generate)
  if best.class ~= 'test' then  -- it has no turns: others do those
    redis.call('HSET', 'hdb:turns', 'class', exact(least), 'class ' .. best.class, exact(least + 1 / weight))
  end
  return best
end

local function fill(class, group)
  local done = {}
  local function fits(other)
    return rows + number(other, 'rows') <= most_rows and number(other, 'attempt') == 0
      and get(other, 'batch_group') == group
  end
  local again = true
  while again and #taken / 3 < most_jobs and rows < most_rows do
    again = false
    each_line(class, function(line)
      if done[line.member] then return false end
      local other = first_of(line, CHUNK, fits)
      done[line.member] = not other
      if other then take_from(line, other) end
      again = other ~= nil
      return again
    end)
  end
end

local function claim()
  if ref ~= '' and get(ref, 'state') == 'queued' then
    local at = place(ref)
    local ready = redis.call('ZSCORE', 'hdb:queued:' .. at.name, ref)
    if at.name == kind and ready and tonumber(ready) <= time and is_able(at.needs) then
      take(ref)
      return at.class
    end
  end
  local next = choose()
  if not next then
    adopt()
    next = choose()
  end
  if not next then return end
  take_from(next.line, next.candidate)
  return next.class
end

local class = claim()
if not class then return { 0 } end
local group = get(taken[1], 'batch_group')
if taken[2] == '1' and group and group ~= '' then fill(class, group) end
local waits = 0
for _, name in ipairs(QUEUES) do
  waits = waits + (name == 'test' and 0 or redis.call('ZCOUNT', 'hdb:queued:' .. name, '-inf', whole(time)))
end
return { (waits > 0 and may_notify(notifications, 1)) and 1 or 0, unpack(taken) }
