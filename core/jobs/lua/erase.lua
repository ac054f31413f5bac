-- refs -> how many of them were known
local known = 0
for _, ref in ipairs(ARGV) do
  known = known + redis.call('DEL', named('job', ref))
  redis.call('DEL', named('events', ref))
  for _, key in ipairs({ 'hdb:queued:personalize', 'hdb:queued:generate', 'hdb:queued:batch', 'hdb:running', 'hdb:bells' }) do
    redis.call('ZREM', key, ref)
  end
end
return known
