-- The timers that are set aside for inputs of one topic.
-- KEYS: 1 meta, 2 aside
-- ARGV: 1 watermark field
-- Returns {'lost'} when the wheel has no generation; {'ok', {packed, due time (ms), ...}}
-- Cost: O(timers set aside)
local meta = redis.call('HMGET', KEYS[1], 'gen', 'aside')
if not meta[1] then
  return {'lost'}
end
if meta[2] ~= ARGV[1] then
  return {'ok', {}}
end
return {'ok', redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')}
