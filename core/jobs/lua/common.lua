-- What all transitions share; put in front of each of them. All times are milliseconds of Redis' own clock.
--   hdb:{tenant}:job:{id}     hash: the record            hdb:{tenant}:events:{id}  stream: what happened to it
--   hdb:queued:{kind}         refs by the time from which they may be claimed
--   hdb:queued:batch          the same for items of batches: they wait until nothing else of their kind does
--   hdb:running               refs by the end of their lease
--   hdb:bells                 queued refs by the time to notify a worker of them (again)
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
  return 'hdb:' .. tenant .. ':' .. what .. ':' .. id
end

local function get(ref, field)
  return redis.call('HGET', named('job', ref), field)
end

local function number(ref, field)
  return tonumber(get(ref, field) or '0') or 0
end

-- Count the version up, and publish the event to those who follow the job. The record keeps the last event's id: when
-- the stream is gone, that event can still be made from the record.
local function publish(ref, event)
  local key, stream = named('job', ref), named('events', ref)
  local version = redis.call('HINCRBY', key, 'version', 1)
  local seen = redis.call('HMGET', key, 'state', 'attempt', 'stage', 'step', 'total', 'preview')
  local fields = { 'event', event, 'version', version, 'at', whole(now()), 'state', seen[1], 'attempt', seen[2],
    'stage', seen[3] or '', 'step', seen[4] or '0', 'total', seen[5] or '0' }
  if event == 'preview' then
    fields[#fields + 1] = 'preview'
    fields[#fields + 1] = seen[6]
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

local function queue_of(ref)
  local seen = redis.call('HMGET', named('job', ref), 'kind', 'batch_id')
  return 'hdb:queued:' .. ((seen[2] and seen[2] ~= '') and 'batch' or seen[1])
end

local function enqueue(ref, ready, notify_at)
  redis.call('ZADD', queue_of(ref), whole(ready), ref)
  redis.call('ZADD', 'hdb:bells', whole(notify_at), ref)
end

local function finish(ref, state, result, code, detail, seconds)
  redis.call('ZREM', 'hdb:running', ref)
  redis.call('ZREM', 'hdb:bells', ref)
  redis.call('ZREM', queue_of(ref), ref)
  if state ~= 'succeeded' then redis.call('HDEL', named('job', ref), 'preview') end  -- what the attempts made goes
  change(ref, 'state', 'state', state, 'finished_at', whole(now()), 'result', result, 'error_code', code,
    'error_detail', detail, 'seconds', seconds)
  return state
end

local function give_back(ref, ready, notify_at)
  redis.call('ZREM', 'hdb:running', ref)
  redis.call('HDEL', named('job', ref), 'preview')  -- the next attempt makes its own
  enqueue(ref, ready, notify_at)
  change(ref, 'state', 'state', 'queued', 'stage', '', 'step', 0, 'total', 0)
  return 'queued'
end
