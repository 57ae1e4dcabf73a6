-- own(meta, epoch): nil for the owner, else the answer to give.
-- Without any epoch the wheel is gone, or was declared lost: its owner must take it again.
-- Cost: O(1)
local function own(meta, epoch)
  local owner = redis.call('HGET', meta, 'epoch')
  if not owner then
    return {'lost', 'no epoch'}
  end
  if owner ~= epoch then
    return {'fenced', owner}
  end
  return nil
end
