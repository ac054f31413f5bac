-- ref, fence, counted (1: the attempt was used up), delay, notify_after, most attempts, error code, error detail
-- -> queued | failed | canceled | lost | gone
local ref, fence, counted, delay, notify_after, most, code, detail = unpack(ARGV)
local hold = holder(ref, fence)
if hold ~= 'held' then return ended(ref, fence, hold) end
if get(ref, 'cancel') == '1' then return finish(ref, 'canceled', '', '', '', '{}') end
if counted == '1' and number(ref, 'attempt') >= tonumber(most) then
  return finish(ref, 'failed', '', code, detail, '{}')
end
if counted ~= '1' then redis.call('HINCRBY', named('job', ref), 'attempt', -1) end
local wait = tonumber(delay)
if wait > 0 then return give_back(ref, now() + wait, now() + wait) end
return give_back(ref, number(ref, 'created_at'), now() + tonumber(notify_after))
