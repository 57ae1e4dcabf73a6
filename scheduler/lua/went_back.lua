-- went_back(meta, wake, gen, step): whether the wheel is that of generation `gen`, and knows of fewer
-- calls of those who set timers aside than it has had (`step`; '' for who has not): then it has lost
-- what it had been told, and is declared lost.
-- Cost: O(1)
local function went_back(meta, wake, gen, step)
  if step == '' or redis.call('HGET', meta, 'gen') ~= gen then
    return false
  end
  if tonumber(redis.call('HGET', meta, 'asides') or 0) >= tonumber(step) then
    return false
  end
  redis.call('HDEL', meta, 'gen', 'epoch')
  redis.call('PUBLISH', wake, 'wake')
  return true
end
