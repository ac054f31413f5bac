-- ref -> unknown | over | canceled (it was queued) | asked (it is running)
local ref = ARGV[1]
local state = get(ref, 'state')
if not state then return 'unknown' end
if state == 'queued' then return finish(ref, 'canceled', '', '', '', '{}') end
if state ~= 'running' then return 'over' end
if get(ref, 'cancel') ~= '1' then change(ref, 'cancel_requested', 'cancel', 1) end
return 'asked'
