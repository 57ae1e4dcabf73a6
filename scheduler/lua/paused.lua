-- Pauses: `paused` is a hash of who is paused and where their timers are parked once they fall due: a
-- slot `p<number>` of its own, in which they keep their due time (ms), and which is in no index as
-- long as they are paused. Resuming puts it there, before all others. 'all' stands for everybody: then
-- nothing leaves its slot at all.

local ALL = 'all'

-- Before all lanes and slots.
local RESUMED = -1

-- start_of(slot, slot_ms): when a slot begins (ms): a parked one at 0.
local function start_of(slot, slot_ms)
  return (tonumber(slot) or 0) * slot_ms
end

-- who_of(packed): the names in `paused` that stop a timer: its pod, its member, and its member who has
-- opted out, as long as anything of theirs is left (scheduler/timer.py has the layout).
local function who_of(packed)
  local flags, from = string.byte(packed, 1), 3
  local function id(is_uuid)
    local length = 16
    if not is_uuid then
      local high, low = string.byte(packed, from, from + 1)
      length = 2 + high * 256 + low
    end
    from = from + length
    return (is_uuid and '#' or '=') .. string.sub(packed, from - length, from - 1)
  end
  local pod = id(flags % 4 >= 2)
  id(flags % 8 >= 4)
  local member = id(flags % 16 >= 8)
  return 'pod' .. pod, 'member' .. member, 'opted_out' .. member
end

-- parked_at(paused, packed): the slots where the timer may be parked, in a table with gaps (false).
local function parked_at(paused, packed)
  return redis.call('HMGET', paused, who_of(packed))
end

-- resumed_of(index): the slots of those who were resumed, as far as they are not empty yet.
local function resumed_of(index)
  return redis.call('ZRANGEBYSCORE', index, RESUMED, RESUMED)
end

-- pause(paused, meta, index, slot_prefix, who, on): pauses or resumes; returns whether there may be
-- something to do for the owner now.
-- Cost: O(log slots)
local function pause(paused, meta, index, slot_prefix, who, on)
  if on then
    if redis.call('HEXISTS', paused, who) == 0 then
      redis.call('HSET', paused, who, 'p' .. redis.call('HINCRBY', meta, 'parks', 1))
    end
    return false
  end
  local slot = redis.call('HGET', paused, who)
  if slot then
    redis.call('HDEL', paused, who)
    if redis.call('EXISTS', slot_prefix .. slot) == 1 then
      redis.call('ZADD', index, RESUMED, slot)
    end
  end
  return slot and true or false
end

-- park(paused, slot_prefix, start, due): of `due` ({packed, time within the slot, ...}), which have left
-- a slot that begins at `start` (ms), parks those whose pod or member is paused; returns the others.
-- Cost: O(timers * log(timers parked))
local function park(paused, slot_prefix, start, due)
  local names, asked, known = {}, {}, {}
  for i = 1, #due, 2 do
    names[i] = {who_of(due[i])}
    for _, name in ipairs(names[i]) do
      if known[name] == nil then
        known[name] = false
        asked[#asked + 1] = name
      end
    end
  end
  for i = 1, #asked, 4000 do
    local upto = math.min(i + 3999, #asked)
    for j, slot in ipairs(redis.call('HMGET', paused, unpack(asked, i, upto))) do
      known[asked[i + j - 1]] = slot
    end
  end
  local rest, aside = {}, {}
  for i = 1, #due, 2 do
    local slot = known[names[i][1]] or known[names[i][2]] or known[names[i][3]]
    if slot then
      local into = aside[slot] or {}
      aside[slot] = into
      into[#into + 1] = string.format('%.0f', start + due[i + 1])
      into[#into + 1] = due[i]
    else
      rest[#rest + 1] = due[i]
      rest[#rest + 1] = due[i + 1]
    end
  end
  for slot, fields in pairs(aside) do
    for i = 1, #fields, 4000 do
      redis.call('ZADD', slot_prefix .. slot, unpack(fields, i, math.min(i + 3999, #fields)))
    end
  end
  return rest
end
