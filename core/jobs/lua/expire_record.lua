-- ref, seconds that the record is kept, seconds that its events are -> whether there was one
-- The job is over: fields go that only matter before that, that are empty, or that the key says as well. The others are
-- written anew: Redis does not take back the space of fields that go.
local ref, seconds, events = ARGV[1], ARGV[2], ARGV[3]
local key = named('job', ref)
local before = {}
for _, name in ipairs({ 'id', 'tenant', 'rows', 'batch_group', 'rung', 'setbacks', 'seconds_left', 'work', 'needs' }) do
  before[name] = true
end
redis.call('EXPIRE', named('events', ref), events)
local fields, kept = readable(ref, redis.pcall('HGETALL', key), {}), {}
for i = 1, #fields, 2 do
  if fields[i + 1] ~= '' and not before[fields[i]] then
    kept[#kept + 1] = fields[i]
    kept[#kept + 1] = fields[i + 1]
  end
end
if #kept == 0 then return 0 end
redis.call('DEL', key)
redis.call('HSET', key, unpack(kept))
return redis.call('EXPIRE', key, seconds)
