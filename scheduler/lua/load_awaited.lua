-- Adds timers that have fired to a wheel that is being rebuilt.
-- KEYS: 1 meta, 2 awaited
-- ARGV: 1 epoch, 2.. deadline (ms) and packed timer in turn
-- Returns {'fenced', owner}; {'lost', why}; {'ok', timers added}
-- Cost: O(timers of the call * log(timers awaited)). The caller bounds a call.
--@include own.lua

local refused = own(KEYS[1], ARGV[1])
if refused then
  return refused
end
if redis.call('HEXISTS', KEYS[1], 'gen') == 1 then
  return {'lost', 'it is open, nothing may be loaded'}
end
-- Lua's unpack takes some 8,000 values at most (LUAI_MAXCSTACK). Even.
local UNPACK = 4000
local added = 0
for i = 2, #ARGV, UNPACK do
  added = added + redis.call('ZADD', KEYS[2], unpack(ARGV, i, math.min(i + UNPACK - 1, #ARGV)))
end
return {'ok', added}
