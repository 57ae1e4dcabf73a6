-- Where timers are, all in one moment.
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 paused, 6.. further sorted sets of timers that wait
-- ARGV: 1 slot prefix, 2 slot width (ms), then of each timer: slot, due time within it, packed
-- Returns {now, {field, value, ... of meta}, {waits 0 or 1, in flight 0 or 1, deadline or '', ...}}
-- Cost: O(timers of the call * log(timers of a slot), and the batch in flight once). The caller
-- bounds a call.
--@include lanes.lua
--@include paused.lua

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local claimed = nil
local function in_flight(packed)
  if not claimed then
    claimed = {}
    local batch = redis.call('GET', KEYS[3])
    if batch then
      local groups = cmsgpack.unpack(batch)
      for i = 2, #groups, 2 do
        for j = 1, #groups[i], 2 do
          claimed[groups[i][j]] = true
        end
      end
    end
  end
  return claimed[packed] and 1 or 0
end

-- A slot that is not in the index is never looked at again: what is in there does not wait.
local indexed = {}
local function in_slot(slot, relative, packed)
  if indexed[slot] == nil then
    indexed[slot] = redis.call('ZSCORE', KEYS[2], slot) and true or false
  end
  local at = indexed[slot] and redis.call('ZSCORE', ARGV[1] .. slot, packed)
  return at and tonumber(at) == tonumber(relative)
end

local lanes, resumed = lanes_of(KEYS[2]), resumed_of(KEYS[2])
local any_paused = redis.call('EXISTS', KEYS[5]) == 1
local function in_lane(slot, relative, packed)
  for _, lane in ipairs(lanes) do
    local at = redis.call('ZSCORE', ARGV[1] .. lane, packed)
    if at and tonumber(at) == (slot - lane) * ARGV[2] + relative then
      return true
    end
  end
  return false
end

local function parked(slot, relative, packed)
  local due = slot * ARGV[2] + relative
  for _, places in ipairs({resumed, any_paused and parked_at(KEYS[5], packed) or {}}) do
    for _, place in ipairs(places) do
      local at = place and redis.call('ZSCORE', ARGV[1] .. place, packed)
      if at and tonumber(at) == due then
        return true
      end
    end
  end
  return false
end

local seen = {}
for i = 3, #ARGV, 3 do
  local packed = ARGV[i + 2]
  local slot, relative = ARGV[i], ARGV[i + 1]
  local waits = in_slot(slot, relative, packed)
    or in_lane(slot, relative, packed)
    or parked(slot, relative, packed)
  for k = 6, #KEYS do
    waits = waits or redis.call('ZSCORE', KEYS[k], packed) ~= false
  end
  local deadline = redis.call('ZSCORE', KEYS[4], packed) or ''
  seen[#seen + 1] = waits and 1 or 0
  seen[#seen + 1] = (waits or deadline ~= '') and 0 or in_flight(packed)
  seen[#seen + 1] = deadline
end
return {string.format('%.0f', now), redis.call('HGETALL', KEYS[1]), seen}
