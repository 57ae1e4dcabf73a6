-- settle(in_flight, awaited, answered, deadline): the batch in flight is done. Its timers have
-- fired: their results are awaited until `deadline` (ms), but of those that are in `answered`. Its
-- deadlines (slot -1) have come, and are not awaited again.
-- The first write is one that a full Redis allows, and so all are: dispatch goes on where ingest
-- waits, and an awaited timer is little more than it was in its slot.
-- Cost: O(timers of the batch * log(timers awaited)); nothing where no batch is in flight.

-- Lua's unpack takes some 8,000 values at most (LUAI_MAXCSTACK). Even.
local SETTLE = 4000

local function settle(in_flight, awaited, answered, deadline)
  local packed = redis.call('GET', in_flight)
  redis.call('DEL', in_flight)
  if not packed then
    return
  end
  -- As text once, not once for each timer.
  local score = string.format('%.0f', deadline)
  local batch = cmsgpack.unpack(packed)
  for i = 1, #batch, 2 do
    if tonumber(batch[i]) >= 0 then
      -- {packed, relative due time, packed, ...} becomes, behind one score, {packed, score, ...}.
      local fired = batch[i + 1]
      for j = 2, #fired, 2 do
        fired[j] = score
      end
      for j = 1, #fired, SETTLE do
        local last = math.min(j + SETTLE - 1, #fired)
        redis.call('ZADD', awaited, score, unpack(fired, j, last - 1))
      end
    end
  end
  local known = redis.call('SMEMBERS', answered)
  for j = 1, #known, SETTLE do
    redis.call('ZREM', awaited, unpack(known, j, math.min(j + SETTLE - 1, #known)))
  end
  redis.call('DEL', answered)
end
