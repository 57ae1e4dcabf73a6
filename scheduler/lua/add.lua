-- What one input makes of the wheel: timers leave, move and come, and the watermark of its topic
-- goes on, by compare-and-swap; all of it or nothing.
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 answered, 6 held
-- ARGV: 1 slot prefix, 2 wake channel, 3 watermark field, 4 expected, 5 upto,
--       6 earliest due time of what comes or moves ('' for nothing),
--       7 to 9 numbers of fields of the three lists that follow from 10 on, one behind the other:
--         what must be reached (two each: watermark field, least offset),
--         what leaves (two each: slot, packed),
--         what moves (four each: slot it is in, slot it goes to, relative due time, packed);
--       then what comes: groups (put.lua)
-- Returns {'lost'} when the wheel has no generation (being rebuilt, or gone);
--         {'ok', watermark after the call}: nothing has changed unless `expected` was right;
--         {'behind', watermark field}: that one has not been reached, nothing has changed
-- Cost: O((timers of the call) * log(timers awaited)). The caller bounds a call.
-- A call that takes something away begins with a ZREM, so that it goes through where Redis is full:
-- it makes about as much room as it needs.
--@include put.lua
--@include lanes.lua

local meta = redis.call('HMGET', KEYS[1], 'gen', ARGV[3], 'head')
if not meta[1] then
  return {'lost'}
end
local at = meta[2] or '-1'
if at ~= ARGV[4] then
  return {'ok', at}
end
local leave = 10 + tonumber(ARGV[7])
local move = leave + tonumber(ARGV[8])
local come = move + tonumber(ARGV[9])
for i = 10, leave - 1, 2 do
  local reached = redis.call('HGET', KEYS[1], ARGV[i]) or '-1'
  if tonumber(reached) < tonumber(ARGV[i + 1]) then
    return {'behind', ARGV[i]}
  end
end

local change = 0

-- Whether the timer was in the slot; it is there no longer.
local function left(slot, packed)
  local key = ARGV[1] .. slot
  if redis.call('ZREM', key, packed) == 0 then
    return false
  end
  if redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', KEYS[2], slot)
  end
  return true
end

-- Likewise of a lane; asked for only where a timer is not in its slot.
local function stepped_out(packed)
  for _, lane in ipairs(lanes_of(KEYS[2])) do
    if left(lane, packed) then
      return true
    end
  end
  return false
end

-- Likewise of those that are held back; asked for only where a timer is not in its slot.
local any_held = nil
local function released(packed)
  if any_held == nil then
    any_held = redis.call('EXISTS', KEYS[6]) == 1
  end
  return any_held and redis.call('ZREM', KEYS[6], packed) == 1
end

local in_flight = redis.call('EXISTS', KEYS[3]) == 1
for i = leave, move - 1, 2 do
  if redis.call('ZREM', KEYS[4], ARGV[i + 1]) == 0 then
    if left(ARGV[i], ARGV[i + 1]) or stepped_out(ARGV[i + 1]) or released(ARGV[i + 1]) then
      change = change - 1
    elseif in_flight then
      -- Perhaps in the batch: the settling must not await what has been answered by then.
      redis.call('SADD', KEYS[5], ARGV[i + 1])
    end
  end
end
for i = move, come - 1, 4 do
  -- Only from where it waits: what has been claimed by now is on its way, and would be fired again.
  if left(ARGV[i], ARGV[i + 3]) or stepped_out(ARGV[i + 3]) or released(ARGV[i + 3]) then
    redis.call('ZADD', ARGV[1] .. ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
    redis.call('ZADD', KEYS[2], ARGV[i + 1], ARGV[i + 1])
  end
end
change = change + put(KEYS[2], ARGV[1], ARGV[come])
if change ~= 0 then
  redis.call('HINCRBY', KEYS[1], 'pending', change)
end
-- The owner sleeps until `head`; an earlier timer must wake it.
if ARGV[6] ~= '' and (not meta[3] or tonumber(ARGV[6]) < tonumber(meta[3])) then
  redis.call('HSET', KEYS[1], 'head', ARGV[6])
  redis.call('PUBLISH', ARGV[2], 'wake')
end
if ARGV[5] ~= ARGV[4] then
  redis.call('HSET', KEYS[1], ARGV[3], ARGV[5])
end
return {'ok', ARGV[5]}
