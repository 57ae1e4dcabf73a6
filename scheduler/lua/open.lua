-- Ends a rebuild: from here on adds and claims work.
-- KEYS: 1 meta, 2 index, 3 awaited, 4 paused
-- ARGV: 1 epoch, 2 gen, 3 seq, 4 nonce, 5 timers and 6 awaited ones that were loaded ('': any),
--       7 slot prefix, 8 when the shard's last batch was claimed (ms; 0: not known), 9 number of
--       fields of the list that follows from 10 on: watermark field and offset in turn; then the
--       names of who is paused (paused.lua)
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
  if not meta[3] then
    return {'lost', 'it is not wiped'}
  end
  local held = (meta[2] or '0') .. ' and ' .. redis.call('ZCARD', KEYS[3])
  if held ~= ARGV[5] .. ' and ' .. ARGV[6] then
    return {'lost', 'loaded ' .. ARGV[5] .. ' and ' .. ARGV[6] .. ', holds ' .. held}
  end
end
-- The first write must be one that a full Redis allows: the dispatcher must go on.
redis.call('HDEL', KEYS[1], 'wiped')
redis.call('HSET', KEYS[1], 'seq', ARGV[3], 'nonce', ARGV[4], 'head', 0)
local last = tonumber(ARGV[8])
if last > 0 then
  -- Never ahead of this clock, by which the next batch is held against it.
  local clock = redis.call('TIME')
  last = math.min(last, clock[1] * 1000 + math.floor(clock[2] / 1000))
  redis.call('HSET', KEYS[1], 'last', string.format('%.0f', last))
end
local names = 10 + tonumber(ARGV[9])
for i = 10, names - 1, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
for i = names, #ARGV do
  pause(KEYS[4], KEYS[1], KEYS[2], ARGV[7], ARGV[i], true)
end
redis.call('HSET', KEYS[1], 'gen', ARGV[2])
return {'ok', 0}
