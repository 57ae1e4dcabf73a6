-- What one input makes of the wheel: timers leave, move and come, and the watermark of its topic
-- goes on, by compare-and-swap; all of it or nothing.
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 answered, 6 held, 7 paused, 8 aside
-- ARGV: 1 slot prefix, 2 wake channel, 3 watermark field, 4 expected, 5 upto,
--       6 earliest due time of what comes or moves ('' for nothing),
--       7 to 10 numbers of fields of the four lists that follow from 14 on, one behind the other,
--       11 slot width (ms), 12 and 13 what set_aside.lua has returned: generation and number of calls,
--       those of this script since among them ('' for who has set nothing aside); the lists:
--         what must be reached (two each: watermark field, least offset),
--         what leaves (two each: slot, packed),
--         what moves (four each: slot it is in, slot it goes to, relative due time, packed),
--         who is paused or resumed (two each: name (paused.lua), '1' or '0');
--       then what comes: groups (put.lua)
-- Returns {'lost'} when the wheel has no generation (being rebuilt, or gone), or is found to have gone
--         back in time;
--         {'ok', watermark after the call}: nothing has changed unless `expected` was right;
--         {'behind', watermark field}: that one has not been reached, nothing has changed
-- Cost: O((timers of the call) * log(timers awaited)). The caller bounds a call.
-- A call that takes something away begins with a ZREM, so that it goes through where Redis is full:
-- it makes about as much room as it needs.
--@include behind.lua
--@include put.lua
--@include lanes.lua
--@include paused.lua
--@include places.lua
--@include put_back.lua
--@include went_back.lua

local meta = redis.call('HMGET', KEYS[1], 'gen', ARGV[3], 'head')
if not meta[1] or went_back(KEYS[1], ARGV[2], ARGV[12], ARGV[13]) then
  return {'lost'}
end
local at = meta[2] or '-1'
if at ~= ARGV[4] then
  return {'ok', at}
end
local leave = 14 + tonumber(ARGV[7])
local move = leave + tonumber(ARGV[8])
local pauses = move + tonumber(ARGV[9])
local come = pauses + tonumber(ARGV[10])
local missing = behind(KEYS[1], 14, leave - 1)
if missing then
  return {'behind', missing}
end

local change = 0

local places = leave < pauses and places(KEYS[2], ARGV[1], KEYS[6], KEYS[7], KEYS[8])
local in_flight = redis.call('EXISTS', KEYS[3]) == 1
for i = leave, move - 1, 2 do
  if places.aside(ARGV[i + 1]) then
    change = change - 1
  elseif redis.call('ZREM', KEYS[4], ARGV[i + 1]) == 0 then
    if places.anywhere(ARGV[i], ARGV[i + 1]) then
      change = change - 1
    elseif in_flight then
      -- Perhaps in the batch: the settling must not await what has been answered by then.
      redis.call('SADD', KEYS[5], ARGV[i + 1])
    end
  end
end
for i = move, pauses - 1, 4 do
  -- Only from where it waits: what has been claimed by now is on its way, and would be fired again.
  if places.anywhere(ARGV[i], ARGV[i + 3]) then
    redis.call('ZADD', ARGV[1] .. ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i + 1])
  end
end
change = change + put(KEYS[2], ARGV[1], ARGV[come])
if change ~= 0 then
  redis.call('HINCRBY', KEYS[1], 'pending', change)
end
local resumed = false
for i = pauses, come - 1, 2 do
  local on = ARGV[i + 1] == '1'
  resumed = pause(KEYS[7], KEYS[1], KEYS[2], ARGV[1], ARGV[i], on) or resumed
end
if resumed then
  redis.call('HSET', KEYS[1], 'head', 0)
  redis.call('PUBLISH', ARGV[2], 'wake')
end
-- The owner sleeps until `head`; an earlier timer must wake it.
if ARGV[6] ~= '' and (not meta[3] or tonumber(ARGV[6]) < tonumber(meta[3])) then
  redis.call('HSET', KEYS[1], 'head', ARGV[6])
  redis.call('PUBLISH', ARGV[2], 'wake')
end
if ARGV[13] ~= '' then
  redis.call('HINCRBY', KEYS[1], 'asides', 1)
end
if ARGV[5] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], ARGV[3], ARGV[5])
  put_back(KEYS[8], KEYS[1], ARGV[3], KEYS[2], ARGV[1], tonumber(ARGV[11]), ARGV[2])
end
return {'ok', ARGV[5]}
