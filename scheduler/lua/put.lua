-- put(index, slot_prefix, groups): adds the timers in `groups`, a MessagePack array of slot and
-- members in turn; members are an array of relative due time and packed timer in turn. All are
-- strings; '' is for no groups. One argument for all of them, since a client takes longer to frame
-- arguments one by one than for all its other work on them.
-- One variadic ZADD a group, and one for the index: no Lua code runs per timer.
-- Returns the number of timers that were not there before.
-- Cost: O(timers). The caller bounds a call.

-- Lua's unpack takes some 8,000 values at most (LUAI_MAXCSTACK).
local UNPACK = 4000

local function put(index, slot_prefix, groups)
  local added = 0
  local slots = {}
  groups = groups ~= '' and cmsgpack.unpack(groups) or {}
  for i = 1, #groups, 2 do
    local slot, members = groups[i], groups[i + 1]
    for j = 1, #members, UNPACK do
      local upto = math.min(j + UNPACK - 1, #members)
      added = added + redis.call('ZADD', slot_prefix .. slot, unpack(members, j, upto))
    end
    slots[#slots + 1] = slot
    slots[#slots + 1] = slot
  end
  for j = 1, #slots, UNPACK do
    redis.call('ZADD', index, unpack(slots, j, math.min(j + UNPACK - 1, #slots)))
  end
  return added
end
