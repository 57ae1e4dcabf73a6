-- next_due(index, slot_prefix): due time of the earliest timer, or false when there is none.
-- Cost: O(log slots).
local function next_due(index, slot_prefix, slot_ms)
  local slot = redis.call('ZRANGE', index, 0, 0)[1]
  if not slot then
    return false
  end
  local first = redis.call('ZRANGE', slot_prefix .. slot, 0, 0, 'WITHSCORES')
  return tonumber(slot) * slot_ms + tonumber(first[2] or 0)
end
