-- claim_fairly(index, slot_prefix, slot_ms, now, limit, turn, take): due timers leave their slots, at
-- most `limit` of them, by `take(slot, count, latest)`, which returns {packed, relative due, ...}, how
-- many left (more, where some are overdue), and whether all of the slot did. `turn` is a number that
-- grows.
-- Returns {{slot, {packed, relative due, ...}}, ...} and how much of `limit` is not used.
-- While no more is due than that, it is all that is due, in its order. In a backlog the timers of pods
-- that crowd it step aside into lanes, on a look ahead of up to SIFT batches: so who does not crowd
-- waits for no more than a batch, as far as the look reaches. Behind a crowd that is longer than that,
-- what fell due last has a quarter of each batch: what falls due now does not wait for the end of it.
-- Needs paused.lua.
-- Cost: O(limit + lanes); where a pod crowds O(SIFT * limit * log(timers of its lane)).

local SIFT = 4

-- So few timers of one pod crowd nobody, however small a batch is.
local FEW = 8

-- Those who were resumed come first, then the slots in order of time.
local function first_slot(index)
  return resumed_of(index)[1]
    or redis.call('ZRANGEBYSCORE', index, LANES, '+inf', 'LIMIT', 0, 1)[1]
end

local function claim_fairly(index, slot_prefix, slot_ms, now, limit, turn, take)
  local groups, lanes, overdue = {}, {}, 0
  local in_lanes = math.floor(limit / 4)

  -- What of a slot's timers has a lane goes there; returns the others.
  local function sifted(slot, due)
    local rest, aside = {}, {}
    for i = 1, #due, 2 do
      local lane = lanes[pod_of(due[i])]
      local into = rest
      if lane then
        into = aside[lane] or {}
        aside[lane] = into
        into[#into + 1] =
          string.format('%.0f', due[i + 1] + start_of(slot, slot_ms) - lane * slot_ms)
        into[#into + 1] = due[i]
      else
        into[#into + 1] = due[i]
        into[#into + 1] = due[i + 1]
      end
    end
    for lane, fields in pairs(aside) do
      for j = 1, #fields, UNPACK do
        local upto = math.min(j + UNPACK - 1, #fields)
        redis.call('ZADD', slot_prefix .. lane, unpack(fields, j, upto))
      end
      redis.call('ZADD', index, lane, lane)
    end
    return rest
  end

  -- Lanes for the pods that have more than a quarter of a batch among what was taken. Returns what is
  -- left of the batch for those who have none, or false where nobody crowds.
  local function made_room()
    local counts, free, crowded = {}, {}, false
    for _, group in ipairs(groups) do
      for i = 1, #group[2], 2 do
        local pod = pod_of(group[2][i])
        counts[pod] = (counts[pod] or 0) + 1
      end
    end
    for lane = 0, LANES - 1 do
      free[lane + 1] = lane
    end
    for _, lane in pairs(lanes) do
      free[lane + 1] = false
    end
    for pod, count in pairs(counts) do
      if count > math.max(in_lanes, FEW) then
        for i = 1, LANES do
          if free[i] then
            lanes[pod], free[i], crowded = free[i], false, true
            break
          end
        end
      end
    end
    if not crowded then
      return false
    end
    local room = limit - in_lanes - overdue
    for _, group in ipairs(groups) do
      group[2] = sifted(group[1], group[2])
      room = room - #group[2] / 2
    end
    return room
  end

  -- What fell due last and has no lane, at most `room` of it, on a look of one batch back from now;
  -- returns how much of the batch that takes.
  local function latest(room)
    local looks, used = limit, 0
    local before = math.floor(now / slot_ms)
    while used < room and looks > 0 do
      local slot = redis.call('ZREVRANGEBYSCORE', index, before, LANES, 'LIMIT', 0, 1)[1]
      if not slot then
        break
      end
      local asked = math.min(room - used, looks)
      local due, taken, all = take(slot, asked, true)
      local stay = sifted(slot, due)
      looks = looks - taken
      overdue = overdue + taken - #due / 2
      used = used + taken - (#due - #stay) / 2
      groups[#groups + 1] = {slot, stay}
      if all or taken < asked then
        before = slot - 1
      end
    end
    return used
  end

  local room, looks, looked_back = limit, SIFT * limit, false
  for _, lane in ipairs(lanes_of(index)) do
    lanes[pod_of(redis.call('ZRANGE', slot_prefix .. lane, 0, 0)[1])] = tonumber(lane)
    room = limit - in_lanes
  end
  while looks > 0 do
    local slot = first_slot(index)
    if not slot or start_of(slot, slot_ms) > now then
      break
    end
    if next(lanes) and not looked_back then
      looked_back = true
      room = room - latest(math.min(in_lanes, room))
    end
    if room <= 0 then
      room = made_room()
      if not room or room <= 0 then
        break
      end
    end
    local asked = math.min(room, looks)
    local due, taken, all = take(slot, asked)
    looks = looks - taken
    overdue = overdue + taken - #due / 2
    room = room - taken
    if next(lanes) then
      local stay = sifted(slot, due)
      room = room + (#due - #stay) / 2
      due = stay
    end
    groups[#groups + 1] = {slot, due}
    if not all and taken < asked then
      break
    end
  end

  local left = limit - overdue
  for _, group in ipairs(groups) do
    left = left - #group[2] / 2
  end
  local used = next(lanes) and lanes_of(index) or {}
  while left > 0 and #used > 0 do
    local each = math.ceil(left / #used)
    for i = 1, #used do
      local lane = used[(turn + i) % #used + 1]
      local due, taken = take(lane, math.min(each, left))
      groups[#groups + 1] = {lane, due}
      left = left - taken
    end
    local still = lanes_of(index)
    -- All that is due of them is taken, where what is left is not due: a clock went back.
    used = #still < #used and still or {}
  end
  return groups, left
end
