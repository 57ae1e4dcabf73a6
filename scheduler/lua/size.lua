-- A look at the shard.
-- KEYS: 1 meta, 2 index, 3 in-flight
-- ARGV: 1 slot prefix, 2 slot width (ms)
-- Returns {next due ('' for none), 1 when a batch is in flight else 0, {field, value, ... of meta}}
-- Cost: O(log slots)
--@include next_due.lua
local due = next_due(KEYS[2], ARGV[1], tonumber(ARGV[2]))
return {due or '', redis.call('EXISTS', KEYS[3]), redis.call('HGETALL', KEYS[1])}
