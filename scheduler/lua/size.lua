-- A look at the shard.
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 held, 6 paused
-- ARGV: 1 slot prefix, 2 slot width (ms), 3 due slots to count, at most
-- Returns {next due ('' for none), 1 when a batch is in flight else 0, timers awaited, timers due
--          (in the slots that are counted; none where everybody is paused), timers held back,
--          timers parked, {field, value, ... of meta}}
-- Cost: O(due slots + log slots + who is paused)
--@include paused.lua
--@include next_due.lua
local slot_prefix, slot_ms = ARGV[1], tonumber(ARGV[2])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local current = math.floor(now / slot_ms)
local all_paused = redis.call('HEXISTS', KEYS[6], ALL) == 1
local due, parked = 0, 0
for _, slot in ipairs(
  redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', current, 'LIMIT', 0, ARGV[3])
) do
  local key = slot_prefix .. slot
  if all_paused then
    break
  elseif start_of(slot, slot_ms) < current * slot_ms then
    due = due + redis.call('ZCARD', key)
  else
    due = due + redis.call('ZCOUNT', key, '-inf', now - current * slot_ms)
  end
end
for _, slot in ipairs(redis.call('HVALS', KEYS[6])) do
  parked = parked + redis.call('ZCARD', slot_prefix .. slot)
end
return {
  next_due(KEYS[2], slot_prefix, slot_ms, KEYS[4], all_paused) or '',
  redis.call('EXISTS', KEYS[3]),
  redis.call('ZCARD', KEYS[4]),
  due,
  redis.call('ZCARD', KEYS[5]),
  parked,
  redis.call('HGETALL', KEYS[1]),
}
