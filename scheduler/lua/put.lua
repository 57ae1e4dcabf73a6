-- put(from): adds the timers in ARGV[from..], grouped by slot.
-- A group is: slot, number of fields that follow (two a timer), then relative due time and packed
-- timer in turn. One variadic ZADD a group, and one for the index: no Lua code runs per timer.
-- Returns the number of timers that were not there before.
-- Cost: O(timers). The caller bounds a call at MAX_ADD timers.

-- Lua's unpack takes some 8,000 values at most (LUAI_MAXCSTACK).
local UNPACK = 4000

local function put(index, slot_prefix, from)
  local added = 0
  local slots = {}
  local i = from
  while ARGV[i] do
    local slot = ARGV[i]
    local last = i + 1 + tonumber(ARGV[i + 1])
    for j = i + 2, last, UNPACK do
      local upto = math.min(j + UNPACK - 1, last)
      added = added + redis.call('ZADD', slot_prefix .. slot, unpack(ARGV, j, upto))
    end
    slots[#slots + 1] = slot
    slots[#slots + 1] = slot
    i = last + 1
  end
  for j = 1, #slots, UNPACK do
    redis.call('ZADD', index, unpack(slots, j, math.min(j + UNPACK - 1, #slots)))
  end
  return added
end
