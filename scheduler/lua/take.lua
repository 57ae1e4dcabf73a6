-- Takes the shard: every call with another epoch is refused from now on.
-- KEYS: 1 meta
-- ARGV: 1 epoch
-- Returns {gen, seq, nonce}, each false when missing
-- Cost: O(1)
-- The first write must be one that a full Redis allows: the dispatcher must go on.
redis.call('HDEL', KEYS[1], 'nothing')
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
return redis.call('HMGET', KEYS[1], 'gen', 'seq', 'nonce')
