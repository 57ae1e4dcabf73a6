-- next_due(index, slot_prefix, slot_ms, awaited, all_paused): time of the earliest timer or deadline, or false
-- when there is none; of the earliest deadline alone where everybody is paused. Needs paused.lua.
-- Cost: O(log slots).
local function next_due(index, slot_prefix, slot_ms, awaited, all_paused)
  local deadline = tonumber(redis.call('ZRANGE', awaited, 0, 0, 'WITHSCORES')[2])
  local slot = not all_paused and redis.call('ZRANGE', index, 0, 0)[1]
  if not slot then
    return deadline or false
  end
  local first = redis.call('ZRANGE', slot_prefix .. slot, 0, 0, 'WITHSCORES')
  local due = start_of(slot, slot_ms) + tonumber(first[2] or 0)
  return deadline and math.min(deadline, due) or due
end
