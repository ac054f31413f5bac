-- ref, fence, lease, preview (JSON) -> held | cancel | lost | gone
local ref, fence, lease, preview = unpack(ARGV)
local hold = holder(ref, fence)
if hold ~= 'held' then return hold end
redis.call('ZADD', 'hdb:running', whole(now() + tonumber(lease)), ref)
if get(ref, 'preview') ~= preview then change(ref, 'preview', 'preview', preview) end
if get(ref, 'cancel') == '1' then return 'cancel' end
return 'held'
