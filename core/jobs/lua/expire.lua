-- ref, fence, ref, fence, ... -> how many of these claims were good: their leases end now
local ended = 0
for i = 1, #ARGV, 2 do
  if holder(ARGV[i], ARGV[i + 1]) == 'held' then
    redis.call('ZADD', 'hdb:running', '0.5', ARGV[i])
    ended = ended + 1
  end
end
return ended
