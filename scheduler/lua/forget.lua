-- Declares the wheel lost and wakes its owner, who will rebuild it from the record. The epoch goes
-- too, so that a rebuild which has begun before cannot open what it has read before.
-- KEYS: 1 meta
-- ARGV: 1 wake channel
-- Returns 1 when there was a generation to forget
-- Cost: O(1)
local gone = redis.call('HDEL', KEYS[1], 'gen', 'epoch')
redis.call('PUBLISH', ARGV[1], 'wake')
return gone
