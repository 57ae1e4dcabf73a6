-- Lanes: where more is due than one batch takes, the due timers of pods that crowd it wait in slots of
-- their own, so that they are late by themselves. A lane is an ordinary slot, of a number that no
-- timer of today has (the first minutes of 1970); what is in it keeps its due time. A pod has at
-- most one, and it is gone once it is empty.

local LANES = 16

-- lanes_of(index): the numbers of those in use.
-- Cost: O(lanes)
local function lanes_of(index)
  return redis.call('ZRANGEBYSCORE', index, 0, LANES - 1)
end

-- pod_of(packed): what tells the timer's pod from others (scheduler/timer.py has the layout).
local function pod_of(packed)
  local flags, _, high, low = string.byte(packed, 1, 4)
  if flags % 4 >= 2 then
    return string.sub(packed, 3, 18)
  end
  return string.sub(packed, 3, 4 + high * 256 + low)
end
