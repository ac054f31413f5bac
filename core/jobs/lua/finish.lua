-- ref, fence, state, result, error code, error detail, seconds (JSON) -> the final state | lost | gone
-- A cancel that was accepted is kept, also when the result is there a moment later.
local ref, fence, state, result, code, detail, seconds = unpack(ARGV)
local hold = holder(ref, fence)
if hold ~= 'held' then return ended(ref, fence, hold) end
if get(ref, 'cancel') == '1' then
  return finish(ref, 'canceled', '', '', '', seconds)
end
return finish(ref, state, result, code, detail, seconds)
