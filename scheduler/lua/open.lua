-- Ends a rebuild: from here on adds and claims work.
-- KEYS: 1 meta, 2 index, 3 awaited, 4 paused
-- ARGV: 1 epoch, 2 gen, 3 seq, 4 nonce, 5 timers and 6 awaited ones that were loaded ('': any),
--       7 slot prefix, 8 number of fields of the list that follows from 9 on: watermark field and
--       offset in turn; then the names of who is paused (paused.lua)
-- Returns {'fenced', owner}; {'lost', why}: it does not hold what was loaded; {'ok', 0}
-- Cost: O(who is paused)
--@include own.lua
--@include paused.lua

local refused = own(KEYS[1], ARGV[1])
if refused then
  return refused
end
-- A Redis that comes back from a moment ago has lost some of what was loaded since.
if ARGV[5] ~= '' then
  local meta = redis.call('HMGET', KEYS[1], 'gen', 'pending', 'wiped')
  if meta[1] then
    return {'lost', 'it went back to another life'}
  end
  local held = (meta[2] or '0') .. ' and ' .. redis.call('ZCARD', KEYS[3])
  if not meta[3] then
    return {'lost', 'it is not wiped'}
  end
  if held ~= ARGV[5] .. ' and ' .. ARGV[6] then
    return {'lost', 'loaded ' .. ARGV[5] .. ' and ' .. ARGV[6] .. ', holds ' .. held}
  end
end
-- The first write must be one that a full Redis allows: the dispatcher must go on.
redis.call('HDEL', KEYS[1], 'wiped')
redis.call('HSET', KEYS[1], 'seq', ARGV[3], 'nonce', ARGV[4], 'head', 0)
local names = 9 + tonumber(ARGV[8])
for i = 9, names - 1, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = names, #ARGV do
  pause(KEYS[4], KEYS[1], KEYS[2], ARGV[7], ARGV[i], true)
end
redis.call('HSET', KEYS[1], 'gen', ARGV[2])
return {'ok', 0}
