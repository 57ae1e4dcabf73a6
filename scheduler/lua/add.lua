-- Adds timers and moves the watermark of their topic, by compare-and-swap.
-- KEYS: 1 meta, 2 index
-- ARGV: 1 slot prefix, 2 wake channel, 3 watermark field, 4 expected, 5 upto,
--       6 earliest due time of the call ('' for no timers), 7.. groups (put.lua)
-- Returns {'lost'} when the wheel has no generation (being rebuilt, or gone);
--         {'ok', watermark after the call}: nothing was added unless it is `upto` and was `expected`
-- Cost: O(timers of the call)
--@include put.lua

local meta = redis.call('HMGET', KEYS[1], 'gen', ARGV[3], 'head')
if not meta[1] then
  return {'lost'}
end
local at = meta[2] or '-1'
if at ~= ARGV[4] then
  return {'ok', at}
end
if ARGV[6] ~= '' then
  local added = put(KEYS[2], ARGV[1], 7)
  if added > 0 then
    redis.call('HINCRBY', KEYS[1], 'pending', added)
  end
  -- The owner sleeps until `head`; an earlier timer must wake it.
  if not meta[3] or tonumber(ARGV[6]) < tonumber(meta[3]) then
    redis.call('HSET', KEYS[1], 'head', ARGV[6])
    redis.call('PUBLISH', ARGV[2], 'wake')
  end
end
redis.call('HSET', KEYS[1], ARGV[3], ARGV[5])
return {'ok', ARGV[5]}
