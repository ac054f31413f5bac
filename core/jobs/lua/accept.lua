-- ref, limit (0: none), milliseconds until a worker is notified again, then the record's fields -> accepted | known | full
local ref, limit, notify_after = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if redis.call('EXISTS', named('job', ref)) == 1 then return 'known' end
local fields = {}
for i = 4, #ARGV do fields[i - 3] = ARGV[i] end
local kind, created
for i = 1, #fields, 2 do
  if fields[i] == 'kind' then kind = fields[i + 1] end
  if fields[i] == 'created_at' then created = tonumber(fields[i + 1]) end
end
if limit > 0 and redis.call('ZCARD', 'hdb:queued:' .. kind) >= limit then return 'full' end
change(ref, 'state', 'state', 'queued', 'attempt', 0, 'fence', 0, unpack(fields))
enqueue(ref, math.min(created, now()), now() + notify_after)
return 'accepted'
