-- refs -> how many of them were known
local known = 0
for _, ref in ipairs(ARGV) do
  leave(ref)
  known = known + redis.call('DEL', named('job', ref))
  redis.call('DEL', named('events', ref))
  local at = place(ref)
  for _, name in ipairs(QUEUES) do
    at.name = name
    redis.call('ZREM', 'hdb:queued:' .. name, ref)
    redis.call('SREM', waiting_of(at), ref)
  end
  redis.call('ZREM', 'hdb:running', ref)
end
return known
