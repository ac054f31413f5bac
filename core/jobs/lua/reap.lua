-- most attempts, notify_after, most refs -> {refs to notify a worker of}, {refs that are over now}
local most, notify_after, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time, due, over = now(), {}, {}

for _, ref in ipairs(redis.call('ZRANGEBYSCORE', 'hdb:running', '-inf', whole(time), 'LIMIT', 0, limit)) do
  local attempt = number(ref, 'attempt')
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
    give_back(ref, number(ref, 'created_at'), time)
  end
end

for _, ref in ipairs(redis.call('ZRANGEBYSCORE', 'hdb:bells', '-inf', whole(time), 'LIMIT', 0, limit)) do
  if get(ref, 'state') == 'queued' then
    local notified = redis.call('HINCRBY', named('job', ref), 'rung', 1)
    redis.call('ZADD', 'hdb:bells', whole(time + notify_after * math.pow(2, math.min(notified - 1, 4))), ref)
    due[#due + 1] = ref
  else
    redis.call('ZREM', 'hdb:bells', ref)
  end
end
return { due, over }
