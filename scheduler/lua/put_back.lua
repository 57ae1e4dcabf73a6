-- put_back(aside, meta, field, index, slot_prefix, slot_ms, wake): the input of the topic with watermark
-- `field` has been applied. What was set aside for it and neither removed nor moved was not changed, and
-- waits in its slot again.
-- Cost: O(timers put back)
local function put_back(aside, meta, field, index, slot_prefix, slot_ms, wake)
  if redis.call('EXISTS', aside) == 0 or redis.call('HGET', meta, 'aside') ~= field then
    return
  end
  local timers = redis.call('ZRANGE', aside, 0, -1, 'WITHSCORES')
  for i = 1, #timers, 2 do
    local slot = math.floor(timers[i + 1] / slot_ms)
    local name = string.format('%.0f', slot)
    redis.call('ZADD', slot_prefix .. name, timers[i + 1] - slot * slot_ms, timers[i])
    redis.call('ZADD', index, name, name)
  end
  redis.call('DEL', aside)
  redis.call('HSET', meta, 'head', 0)
  redis.call('PUBLISH', wake, 'wake')
end
