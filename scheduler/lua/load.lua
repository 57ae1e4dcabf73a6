-- Adds timers to a wheel that is being rebuilt.
-- KEYS: 1 meta, 2 index
-- ARGV: 1 slot prefix, 2 epoch, 3 groups (put.lua)
-- Returns {'fenced', owner}; {'lost', why}; {'ok', timers added}
-- Cost: O(timers of the call)
--@include own.lua
--@include put.lua

local refused = own(KEYS[1], ARGV[2])
if refused then
  return refused
end
local meta = redis.call('HMGET', KEYS[1], 'gen', 'wiped')
if meta[1] then
  return {'lost', 'it is open, nothing may be loaded'}
end
if not meta[2] then
  return {'lost', 'it is not wiped'}
end
local added = put(KEYS[2], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[1], 'pending', added)
return {'ok', added}
