-- ref, fence, counted (1: the attempt was used up), delay, most attempts, most setbacks, error code,
-- error detail -> queued | failed | canceled | lost | gone
-- What is not counted, and comes back with a delay, is a setback that is not the job's fault: each waits twice as long
-- as the one before, up to a minute, and so many of them at most.
local ref, fence, counted, delay, most, most_setbacks, code, detail = unpack(ARGV)
local hold = holder(ref, fence)
if hold ~= 'held' then return ended(ref, fence, hold) end
if get(ref, 'cancel') == '1' then return finish(ref, 'canceled', '', '', '', '{}') end
if counted == '1' and number(ref, 'attempt') >= tonumber(most) then
  return finish(ref, 'failed', '', code, detail, '{}')
end
if counted == '1' then count(ref, 'returned', get(ref, 'kind') or '', code) end
if counted ~= '1' then redis.call('HSET', named('job', ref), 'attempt', whole(math.max(number(ref, 'attempt') - 1, 0))) end
local wait = tonumber(delay)
if counted ~= '1' and wait > 0 then
  local setbacks = number(ref, 'setbacks') + 1
  if setbacks > tonumber(most_setbacks) then return finish(ref, 'failed', '', code, detail, '{}') end
  redis.call('HSET', named('job', ref), 'setbacks', whole(setbacks))
  count(ref, 'set_back', get(ref, 'kind') or '', code)
  wait = math.min(wait * math.pow(2, math.min(setbacks - 1, 10)), math.max(wait, 60000))
end
return give_back(ref, wait > 0 and now() + wait or number(ref, 'created_at'))
