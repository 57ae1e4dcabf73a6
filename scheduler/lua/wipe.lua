-- Begins a rebuild, or goes on with one: removes the generation first, then a bounded number of slots.
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 answered, 6 held, 7 paused, 8 aside
-- ARGV: 1 slot prefix, 2 epoch, 3 slots to remove at most
-- Returns {'fenced', owner}; {'lost', why}; {'ok', slots left}
-- Cost: O(slots to remove + who is paused)
--@include own.lua

local refused = own(KEYS[1], ARGV[2])
if refused then
  return refused
end
redis.call('DEL', KEYS[1], KEYS[3])
-- These may be large: given up here, freed beside.
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6], KEYS[8])
for _, slot in ipairs(redis.call('HVALS', KEYS[7])) do
  redis.call('UNLINK', ARGV[1] .. slot)
end
redis.call('DEL', KEYS[7])
redis.call('HSET', KEYS[1], 'epoch', ARGV[2])
local slots = redis.call('ZRANGE', KEYS[2], 0, ARGV[3] - 1)
for _, slot in ipairs(slots) do
  redis.call('UNLINK', ARGV[1] .. slot)
end
if #slots > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, #slots - 1)
end
local left = redis.call('ZCARD', KEYS[2])
if left == 0 then
  -- A Redis that comes back from before this call may hold timers of the life before: nothing is
  -- loaded beside them.
  redis.call('HSET', KEYS[1], 'wiped', 1)
end
return {'ok', left}
