-- Sets timers aside that an input is about to change, so that whoever changes them knows which of them
-- can no longer fire: a timer that has been claimed is on its way.
-- KEYS: 1 meta, 2 index, 3 held, 4 paused, 5 aside
-- ARGV: 1 slot prefix, 2 slot width (ms), 3 watermark field, 4 expected, 5 wake channel,
--       6 and 7 what a call before this one has returned: generation and number of calls ('' without),
--       8 number of fields of the list that follows from 9 on: what must be reached (two each: watermark field, least offset); then
--       timers (three each: slot, relative due time, packed)
-- Returns {'lost'} when the wheel has no generation, or is found to have gone back in time; {'moved', watermark} when it is not the expected
--         one, and {'behind', watermark field}: nothing has changed;
--         {'ok', gen, how many calls there have been, {1 for each that is aside now, else 0}}
-- Cost: O(timers of the call * log(timers set aside)). The caller bounds a call.
--@include behind.lua
--@include went_back.lua
--@include lanes.lua
--@include paused.lua
--@include places.lua

local meta = redis.call('HMGET', KEYS[1], 'gen', ARGV[3])
if not meta[1] or went_back(KEYS[1], ARGV[5], ARGV[6], ARGV[7]) then
  return {'lost'}
end
local at = meta[2] or '-1'
if at ~= ARGV[4] then
  return {'moved', at}
end
local first = 9 + tonumber(ARGV[8])
local missing = behind(KEYS[1], 9, first - 1)
if missing then
  return {'behind', missing}
end
local places = places(KEYS[2], ARGV[1], KEYS[3], KEYS[4], KEYS[5])
local stopped = {}
for i = first, #ARGV, 3 do
  local slot, packed = ARGV[i], ARGV[i + 2]
  if places.waited(slot, packed) or places.held(packed) then
    local due = string.format('%.0f', slot * ARGV[2] + ARGV[i + 1])
    redis.call('ZADD', KEYS[5], due, packed)
    stopped[#stopped + 1] = 1
  else
    stopped[#stopped + 1] = redis.call('ZSCORE', KEYS[5], packed) and 1 or 0
  end
end
redis.call('HSET', KEYS[1], 'aside', ARGV[3])
return {'ok', meta[1], redis.call('HINCRBY', KEYS[1], 'asides', 1), stopped}
