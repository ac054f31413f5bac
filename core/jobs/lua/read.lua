-- refs -> for each its record as a list of names and values (empty: not known), and how many are before it in its queue
local found = {}
for i, ref in ipairs(ARGV) do
  local fields = redis.call('HGETALL', named('job', ref))
  found[i] = { fields, #fields > 0 and redis.call('ZRANK', queue_of(ref), ref) }
end
return found
