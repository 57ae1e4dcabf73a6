-- A look at the shard.
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 held
-- ARGV: 1 slot prefix, 2 slot width (ms), 3 due slots to count, at most
-- Returns {next due ('' for none), 1 when a batch is in flight else 0, timers awaited, timers due
--          (in the slots that are counted), timers held back, {field, value, ... of meta}}
-- Cost: O(due slots + log slots)
--@include next_due.lua
local slot_prefix, slot_ms = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local current = math.floor(now / slot_ms)
local due = 0
for _, slot in ipairs(
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', current, 'LIMIT', 0, ARGV[3])
) do
  local key = slot_prefix .. slot
  if tonumber(slot) < current then
    due = due + redis.call('ZCARD', key)
  else
    due = due + redis.call('ZCOUNT', key, '-inf', now - current * slot_ms)
  end
end
return {
  next_due(KEYS[2], slot_prefix, slot_ms, KEYS[4]) or '',
  redis.call('EXISTS', KEYS[3]),
  redis.call('ZCARD', KEYS[4]),
  due,
  redis.call('ZCARD', KEYS[5]),
  redis.call('HGETALL', KEYS[1]),
}
