-- hold(due, start, before, overdue, held): of `due` ({packed, time within the slot, ...}, by time), a
-- slot that begins at `start` (ms), appends what was due before `before` (ms) to `overdue` ({packed,
-- due, ...}) and, as ZADD takes it, to `held` ({due, packed, ...}).
-- Returns the rest.
-- Cost: O(timers of the slot)

-- Lua's unpack takes some 8,000 values at most (LUAI_MAXCSTACK). Even.
local UNPACK = 4000

local function hold(due, start, before, overdue, held)
  local i = 1
  while due[i] and start + due[i + 1] < before do
    local at = string.format('%.0f', start + due[i + 1])
    overdue[#overdue + 1] = due[i]
    overdue[#overdue + 1] = at
    held[#held + 1] = at
    held[#held + 1] = due[i]
    i = i + 2
  end
  local rest = {}
  for j = i, #due do
    rest[#rest + 1] = due[j]
  end
  return rest
end
