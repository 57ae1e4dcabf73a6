-- next_due(index, slot_prefix, slot_ms, awaited): time of the earliest timer or deadline, or false
-- when there is none.
-- Cost: O(log slots).
local function next_due(index, slot_prefix, slot_ms, awaited)
  local deadline = tonumber(redis.call('ZRANGE', awaited, 0, 0, 'WITHSCORES')[2])
  local slot = redis.call('ZRANGE', index, 0, 0)[1]
  if not slot then
    return deadline or false
  end
  local first = redis.call('ZRANGE', slot_prefix .. slot, 0, 0, 'WITHSCORES')
  local due = tonumber(slot) * slot_ms + tonumber(first[2] or 0)
  return deadline and math.min(deadline, due) or due
end
