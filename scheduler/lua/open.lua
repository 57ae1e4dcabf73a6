-- Ends a rebuild: from here on adds and claims work.
-- KEYS: 1 meta
-- ARGV: 1 epoch, 2 gen, 3 seq, 4 nonce, 5.. watermark field and offset in turn
-- Returns {'fenced', owner}; {'lost', why}; {'ok', 0}
-- Cost: O(1)
--@include own.lua

local refused = own(KEYS[1], ARGV[1])
if refused then
  return refused
end
-- The first write must be one that a full Redis allows: the dispatcher must go on.
redis.call('HDEL', KEYS[1], 'nothing')
redis.call('HSET', KEYS[1], 'seq', ARGV[3], 'nonce', ARGV[4], 'head', 0)
for i = 5, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'gen', ARGV[2])
return {'ok', 0}
