-- ref, fence, lease, stage, step, total, share, seconds left, event to publish ('': none) -> held | cancel | lost | gone
local ref, fence, lease, stage, step, total, share, left, event = unpack(ARGV)
local hold = holder(ref, fence)
if hold ~= 'held' then return hold end
redis.call('ZADD', 'hdb:running', whole(now() + tonumber(lease)), ref)
if stage ~= '' then
  redis.call('HSET', named('job', ref), 'stage', stage, 'step', step, 'total', total, 'share', share,
    'seconds_left', left)
end
if event ~= '' then publish(ref, event) end
if get(ref, 'cancel') == '1' then return 'cancel' end
return 'held'
