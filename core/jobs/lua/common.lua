-- What all transitions share; put in front of each of them. All times are milliseconds of Redis' own clock.
--   hdb:{tenant}:job:{id}     hash: the record            hdb:{tenant}:events:{id}  stream: what happened to it
--   hdb:queued:{kind, batch or test}      refs by the time from which they may be claimed; those of test keys in the last
--   hdb:{tenant}:waiting:{the same}       the tenant's own refs in that queue
--   hdb:{tenant}:line:{class}:{needs}     the same by class and by what their workers must have, by that time as well
--   hdb:turns:{class}         "{tenant}/{needs}" of these lines, by the work that was done of them: the least is next
--   hdb:turns                 hash: by class, the work of its line that was last; by "class" classes, in turns
--   hdb:running               refs by the end of their lease
--   hdb:counts                hash: how often things happened, by their names
-- Versions that know no lines use the queues and hdb:{tenant}:waiting alone: who finds a ref in a queue and in no line
-- puts it into one (adopt), and a ref in a line whose job is not queued is left out.
local EVENTS_KEPT, EVENTS_TTL = 200, 24 * 3600 * 1000

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

local function named(what, ref)
  local tenant, id = string.match(ref, '^([^/]+)/([^/]+)$')
  if not id then tenant, id = 'none', ref end  -- no job's name: there is nothing under this key
  return 'hdb:' .. tenant .. ':' .. what .. ':' .. id
end

local function is_test(ref)
  return string.match(ref, '^[^/]+%.test/') ~= nil
end

-- Something happened once more to a job that is no test: numbers for monitoring, which are no reason to fail.
local function count(ref, ...)
  if is_test(ref) then return end
  redis.pcall('HINCRBY', 'hdb:counts', table.concat({ ... }, ' '), 1)
end

-- What a command gave that reads a job's record; `nothing` when that is no hash: it goes, the job is in the store.
local function readable(ref, value, nothing)
  if type(value) ~= 'table' or not value.err then return value end
  redis.call('DEL', named('job', ref))
  count(ref, 'dropped', 'job')
  return nothing
end

local function get(ref, field)
  return readable(ref, redis.pcall('HGET', named('job', ref), field), false)
end

local function finite(text)
  local value = tonumber(text or '0') or 0
  return (value >= 0 and value < 9e15) and value or 0  -- neither nan nor inf: arithmetic with it must not fail
end

local function number(ref, field)
  return finite(get(ref, field))
end

-- Count the version up, and publish the event to those who follow the job. The record keeps the last event's id: when
-- the stream is gone, that event can still be made from the record.
local function publish(ref, event)
  local key, stream = named('job', ref), named('events', ref)
  local version = whole(number(ref, 'version') + 1)
  redis.call('HSET', key, 'version', version)
  local seen = redis.call('HMGET', key, 'state', 'attempt', 'stage', 'step', 'total', 'preview', 'share',
    'seconds_left')
  local fields = { 'event', event, 'version', version, 'at', whole(now()), 'state', seen[1] or '', 'attempt',
    seen[2] or '0', 'stage', seen[3] or '', 'step', seen[4] or '0', 'total', seen[5] or '0',
    'share', seen[7] or '0', 'seconds_left', seen[8] or '' }
  if event == 'preview' then
    fields[#fields + 1] = 'preview'
    fields[#fields + 1] = seen[6] or ''
  end
  redis.call('HSET', key, 'event_id', redis.call('XADD', stream, 'MAXLEN', '~', EVENTS_KEPT, '*', unpack(fields)))
  redis.call('PEXPIRE', stream, EVENTS_TTL)
end

local function change(ref, event, ...)
  redis.call('HSET', named('job', ref), ...)
  publish(ref, event)
end

-- 'held' when the caller, who shows the number of its claim, still has the job; else 'gone' (erased) or 'lost'.
local function holder(ref, fence)
  local seen = redis.call('HMGET', named('job', ref), 'state', 'fence')
  if not seen[1] then return 'gone' end
  if seen[1] ~= 'running' or seen[2] ~= fence then return 'lost' end
  return 'held'
end

-- How the caller itself ended the job, when it asks again because the answer was lost on its way; else what holder says.
local function ended(ref, fence, hold)
  local seen = redis.call('HMGET', named('job', ref), 'state', 'fence')
  local final = seen[1] == 'succeeded' or seen[1] == 'failed' or seen[1] == 'canceled'
  return hold == 'lost' and final and seen[2] == fence and seen[1] or hold
end

local QUEUES = { 'personalize', 'generate', 'batch', 'test' }
-- In the order in which they go when it is the turn of several; each with its share of the turns, and its queue.
local CLASSES = { 'generate', 'personalize', 'refine', 'batch', 'test' }
local WEIGHTS = { generate = 8, personalize = 8, refine = 4, batch = 1, test = 1 }
local QUEUE_OF = { generate = 'generate', personalize = 'personalize', refine = 'personalize', batch = 'batch', test = 'test' }

-- Where a job waits: its tenant, its queue, its class, and what its worker must have ("format:model").
local function place(ref)
  local seen = readable(ref, redis.pcall('HMGET', named('job', ref), 'kind', 'batch_id', 'class', 'needs'), {})
  local name = is_test(ref) and 'test' or (seen[2] and seen[2] ~= '') and 'batch' or seen[1] or 'none'
  local class = (seen[3] and QUEUE_OF[seen[3]] == name) and seen[3] or name
  return { tenant = string.match(ref, '^([^/]+)/') or 'none', name = name, class = class, needs = seen[4] or '0:' }
end

local function waiting_of(at)
  return 'hdb:' .. at.tenant .. ':waiting:' .. at.name
end

local function line_of(at)
  return 'hdb:' .. at.tenant .. ':line:' .. at.class .. ':' .. at.needs
end

local function exact(number)
  return string.format('%.17g', number)
end

local function enqueue(ref, ready)
  local at = place(ref)
  redis.call('ZADD', 'hdb:queued:' .. at.name, whole(ready), ref)
  redis.call('SADD', waiting_of(at), ref)
  redis.call('ZADD', line_of(at), whole(ready), ref)
  -- Who comes anew begins where the others are: what was not used is not saved up.
  local turns = finite(redis.call('HGET', 'hdb:turns', at.class))
  redis.call('ZADD', 'hdb:turns:' .. at.class, 'NX', exact(turns), at.tenant .. '/' .. at.needs)
end

local function leave(ref)
  local at = place(ref)
  redis.call('ZREM', 'hdb:queued:' .. at.name, ref)
  redis.call('SREM', waiting_of(at), ref)
  redis.call('ZREM', line_of(at), ref)
end

-- How many jobs are before this one: those of its own line, and as many of each other, as far as there are any.
local function position(ref)
  local at = place(ref)
  local own = redis.call('ZRANK', line_of(at), ref)
  if not own then return redis.call('ZRANK', 'hdb:queued:' .. at.name, ref) end
  local lines = redis.call('ZCARD', 'hdb:turns:' .. at.class)
  local others = redis.call('ZCARD', 'hdb:queued:' .. at.name) - redis.call('ZCARD', line_of(at))
  return own + math.max(0, math.min((own + 1) * (lines - 1), others))
end

-- Whether less than `most` notifications are on their way to the workers: one is enough to say that there is work.
local function may_notify(list, most)
  local length = redis.pcall('LLEN', list)
  return type(length) ~= 'number' or length < most
end

local function finish(ref, state, result, code, detail, seconds)
  redis.call('ZREM', 'hdb:running', ref)
  leave(ref)
  if state ~= 'succeeded' then redis.call('HDEL', named('job', ref), 'preview') end  -- what the attempts made goes
  count(ref, 'ended', get(ref, 'kind') or '', state, code)
  change(ref, 'state', 'state', state, 'finished_at', whole(now()), 'result', result, 'error_code', code,
    'error_detail', detail, 'seconds', seconds)
  return state
end

local function give_back(ref, ready)
  redis.call('ZREM', 'hdb:running', ref)
  redis.call('HDEL', named('job', ref), 'preview')  -- the next attempt makes its own
  enqueue(ref, ready)
  change(ref, 'state', 'state', 'queued', 'stage', '', 'step', 0, 'total', 0, 'share', 0,
    'seconds_left', '')
  return 'queued'
end

-- Take refs into lines that are in a queue only, because another version put them there; some at a time.
local function adopt()
  for _, name in ipairs(QUEUES) do
    local from = finite(redis.call('HGET', 'hdb:turns', 'adopt ' .. name))
    local found = redis.call('ZRANGE', 'hdb:queued:' .. name, from, from + 999, 'WITHSCORES')
    for i = 1, #found, 2 do
      local at = place(found[i])
      if get(found[i], 'state') ~= 'queued' or at.name ~= name then
        redis.call('ZREM', 'hdb:queued:' .. name, found[i])
      elseif not redis.call('ZSCORE', line_of(at), found[i]) then
        enqueue(found[i], finite(found[i + 1]))
      end
    end
    redis.call('HSET', 'hdb:turns', 'adopt ' .. name, #found == 2000 and from + 1000 or 0)
  end
end
