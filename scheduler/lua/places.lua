-- Where a timer waits: in its slot, in a lane, parked, held back, or set aside. Needs lanes.lua and paused.lua.
-- places(index, slot_prefix, held, paused, aside): what to take timers out by.
-- Each is asked for only where the timer is not in the one before.
local function places(index, slot_prefix, held, paused, aside)
  local any_paused = redis.call('EXISTS', paused) == 1
  local any_held = redis.call('EXISTS', held) == 1
  local any_aside = redis.call('EXISTS', aside) == 1
  local others = nil
  local found = {}

  -- Whether the timer was in this slot; it is there no longer.
  local function left(slot, packed)
    local key = slot_prefix .. slot
    if redis.call('ZREM', key, packed) == 0 then
      return false
    end
    if redis.call('EXISTS', key) == 0 then
      redis.call('ZREM', index, slot)
    end
    return true
  end

  -- Likewise of a lane, or of those that are parked or were.
  local function stepped_out(packed)
    if not others then
      others = lanes_of(index)
      for _, slot in ipairs(resumed_of(index)) do
        others[#others + 1] = slot
      end
    end
    for _, slot in ipairs(others) do
      if left(slot, packed) then
        return true
      end
    end
    if any_paused then
      for _, slot in ipairs(parked_at(paused, packed)) do
        if slot and left(slot, packed) then
          return true
        end
      end
    end
    return false
  end

  -- Whether it was in `slot` or has left that for a lane or a parking place; it is there no longer.
  function found.waited(slot, packed)
    return left(slot, packed) or stepped_out(packed)
  end

  -- Whether it was held back; it is no longer.
  function found.held(packed)
    return any_held and redis.call('ZREM', held, packed) == 1
  end

  -- Likewise set aside.
  function found.aside(packed)
    return any_aside and redis.call('ZREM', aside, packed) == 1
  end

  -- Whether it waited at all; it does no longer.
  function found.anywhere(slot, packed)
    -- Where any are aside, most of those that are asked for are.
    return found.aside(packed) or found.waited(slot, packed) or found.held(packed)
  end

  return found
end
