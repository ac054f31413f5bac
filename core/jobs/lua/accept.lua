-- ref, the most that may wait of all tenants and of this one (0: any number), the list of notifications and how many are
-- enough, then the record's fields -> accepted | silent (accepted, no worker need be notified) | known | full | share
-- (this tenant has as many as it may)
local ref, limit, share = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', named('job', ref)) == 1 then return 'known' end
local fields = {}
for i = 6, #ARGV do fields[i - 5] = ARGV[i] end
redis.call('HSET', named('job', ref), unpack(fields))
local at, refusal = place(ref), nil
if limit > 0 and redis.call('ZCARD', 'hdb:queued:' .. at.name) >= limit then refusal = 'full' end
if share > 0 and redis.call('SCARD', waiting_of(at)) >= share then refusal = 'share' end
if refusal then
  redis.call('DEL', named('job', ref))
  return refusal
end
change(ref, 'state', 'state', 'queued', 'attempt', 0, 'fence', 0)
enqueue(ref, math.min(number(ref, 'created_at'), now()))
return may_notify(ARGV[4], tonumber(ARGV[5])) and 'accepted' or 'silent'
