-- Adds timers that have fired to a wheel that is being rebuilt.
-- KEYS: 1 meta, 2 awaited
-- ARGV: 1 epoch, 2 a MessagePack array of deadline (ms, as a string) and packed timer in turn
-- Returns {'fenced', owner}; {'lost', why}; {'ok', timers added}
-- Cost: O(timers of the call * log(timers awaited)). The caller bounds a call.
--@include own.lua

local refused = own(KEYS[1], ARGV[1])
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
-- Lua's unpack takes some 8,000 values at most (LUAI_MAXCSTACK). Even.
local UNPACK = 4000
local members = cmsgpack.unpack(ARGV[2])
local added = 0
for i = 1, #members, UNPACK do
  local upto = math.min(i + UNPACK - 1, #members)
  added = added + redis.call('ZADD', KEYS[2], unpack(members, i, upto))
end
return {'ok', added}
