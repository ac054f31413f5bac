-- refs -> for each its record as a list of names and values (empty: not known), and how many are before it in its queue
local found = {}
for i, ref in ipairs(ARGV) do
  local fields = readable(ref, redis.pcall('HGETALL', named('job', ref)), {})
  found[i] = { fields, #fields > 0 and position(ref) }
end
return found
