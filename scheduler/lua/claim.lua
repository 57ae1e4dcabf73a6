-- Settles the batch that has been committed and claims the next one: due timers leave the slots and
-- deadlines that have come the awaited ones, and become the shard's one in-flight batch, in one
-- step, so that a crash can lose neither. Overdue timers leave the slots too, for the held ones: the
-- batch only tells of them. What is due first is claimed first, until more is due than one batch
-- takes: then a pod that fills more than a quarter of it waits in a lane (lanes.lua), and all lanes
-- together have a quarter of each batch, and what the others leave. Deadlines that have come have an
-- eighth of each batch, and what all of these leave. Timers of who is paused leave their
-- slots as they fall due, and are parked (paused.lua).
-- KEYS: 1 meta, 2 index, 3 in-flight, 4 awaited, 5 answered, 6 held, 7 paused
-- ARGV: 1 slot prefix, 2 slot width (ms), 3 epoch, 4 gen, 5 done seq, 6 done nonce, 7 nonce, 8 limit,
--       9 how long the results of the settled batch are awaited (ms), 10 how late a timer must be to
--       be overdue (ms; '' for never), 11 the slot under which the batch tells of such
-- Returns {'fenced', owner}: another owner has the shard
--         {'lost', why}: gone, of another generation, or back in time: rebuild
--         {'ok', seq, nonce, now, next due ('' for none), {slot, {packed, relative due, ...}, ...},
--          shift of the backlog (ms; '' without one)}
--         deadlines have slot -1, overdue timers -2 (to be postponed) or -3 (expired), and in place
--         of a relative time their own
-- Cost: O((settled + claimed) * log(timers awaited) + log slots), and in a backlog that is crowded
--       O(SIFT * limit) besides, once for each timer in it
--@include own.lua
--@include paused.lua
--@include next_due.lua
--@include settle.lua
--@include hold.lua
--@include lanes.lua
--@include claim_fairly.lua

local refused = own(KEYS[1], ARGV[3])
if refused then
  return refused
end
local slot_prefix, slot_ms = ARGV[1], tonumber(ARGV[2])
local meta = redis.call('HMGET', KEYS[1], 'gen', 'seq', 'nonce', 'head', 'shift', 'last')
if not meta[1] or meta[1] ~= ARGV[4] then
  return {'lost', 'generation ' .. (meta[1] or 'missing')}
end
-- A missing seq is an error, never 0: a wheel that lost it may have lost claims too.
local seq, done = tonumber(meta[2]), tonumber(ARGV[5])
if not seq then
  return {'lost', 'no seq'}
end
local any_paused = redis.call('EXISTS', KEYS[7]) == 1
local all_paused = any_paused and redis.call('HEXISTS', KEYS[7], ALL) == 1
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

if seq == done + 1 then
  local batch = redis.call('GET', KEYS[3])
  if not batch then
    return {'lost', 'no in-flight batch'}
  end
  local due = next_due(KEYS[2], slot_prefix, slot_ms, KEYS[4], all_paused)
  return {'ok', seq, meta[3], now, due or '', cmsgpack.unpack(batch), meta[5] or ''}
end
-- The nonce tells this batch from another of the same seq that a rollback of Redis undid.
if seq ~= done or meta[3] ~= ARGV[6] then
  return {'lost', 'back in time: at batch ' .. seq .. ', committed is ' .. done}
end

-- Only here, where the batch is known to be committed.
settle(KEYS[3], KEYS[4], KEYS[5], now + tonumber(ARGV[9]))

-- A backlog that lasts must not keep attempts from being given up for as long: an eighth is theirs.
local limit = tonumber(ARGV[8])
local deadlines = redis.call('ZCOUNT', KEYS[4], '-inf', now)
local kept = math.min(deadlines, math.ceil(limit / 8), limit - 1)
local room, batch, claimed = limit - kept, {}, 0
local overdue, held = {}, {}
-- What was due before this is overdue; nothing was before 1970.
local overdue_before = ARGV[10] ~= '' and now - tonumber(ARGV[10]) or 0

-- take(slot, count, latest): up to so many due timers leave the slot, the earliest first, or those
-- that fell due last; returns those of them that are neither parked nor overdue ({packed, relative
-- due, ...}), how many left, and whether all did.
local function take(slot, count, latest)
  local start = start_of(slot, slot_ms)
  local key, upto = slot_prefix .. slot, now - start
  local from, due = 0, {}
  if latest then
    local all_due = redis.call('ZCOUNT', key, '-inf', upto)
    if all_due > 0 then
      from = math.max(0, all_due - count)
      due = redis.call('ZRANGE', key, from, all_due - 1, 'WITHSCORES')
    end
  else
    due = redis.call('ZRANGEBYSCORE', key, '-inf', upto, 'WITHSCORES', 'LIMIT', 0, count)
  end
  local taken = #due / 2
  if taken > 0 then
    redis.call('ZREMRANGEBYRANK', key, from, from + taken - 1)
    if any_paused then
      due = park(KEYS[7], slot_prefix, start, due)
    end
    if start < overdue_before then
      due = hold(due, start, overdue_before, overdue, held)
    end
  end
  local left = redis.call('EXISTS', key) == 1
  if not left then
    redis.call('ZREM', KEYS[2], slot)
  end
  return due, taken, not left
end

local groups = {}
if not all_paused then
  groups, room = claim_fairly(KEYS[2], slot_prefix, slot_ms, now, room, seq, take)
end
for _, group in ipairs(groups) do
  if #group[2] > 0 then
    batch[#batch + 1] = tonumber(group[1]) or 0
    batch[#batch + 1] = group[2]
    claimed = claimed + #group[2] / 2
  end
end

-- Of the rest what is due goes first: a deadline can wait, a timer should not.
room = room + kept
local late = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now, 'WITHSCORES', 'LIMIT', 0, room)
if #late > 0 then
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, #late / 2 - 1)
  batch[#batch + 1] = -1
  batch[#batch + 1] = late
end

local shift = meta[5]
if #overdue > 0 then
  for i = 1, #held, UNPACK do
    redis.call('ZADD', KEYS[6], unpack(held, i, math.min(i + UNPACK - 1, #held)))
  end
  batch[#batch + 1] = tonumber(ARGV[11])
  batch[#batch + 1] = overdue
  local last = tonumber(meta[6] or 0)
  local longer = nil
  if not shift then
    -- Since the last batch: one timer that came late must not move all others by as much.
    local earliest = now
    for i = 2, #overdue, 2 do
      earliest = math.min(earliest, tonumber(overdue[i]))
    end
    longer = now - math.max(earliest, last)
  elseif last > 0 and last < overdue_before then
    -- Another outage before the backlog was over: time has stood still for both.
    longer = tonumber(shift) + now - last
  end
  if longer then
    shift = string.format('%.0f', longer)
    redis.call('HSET', KEYS[1], 'shift', shift)
  end
elseif shift then
  redis.call('HDEL', KEYS[1], 'shift')
  shift = nil
end

local due = next_due(KEYS[2], slot_prefix, slot_ms, KEYS[4], all_paused)
if #batch == 0 then
  -- `head` is what the owner sleeps until; an idle turn writes nothing.
  local head = due and string.format('%.0f', due) or '9007199254740991'
  if meta[4] ~= head then
    redis.call('HSET', KEYS[1], 'head', head)
  end
  return {'ok', seq, meta[3], now, due or '', {}, ''}
end
redis.call('SET', KEYS[3], cmsgpack.pack(batch))
if claimed > 0 then
  redis.call('HINCRBY', KEYS[1], 'pending', -claimed)
end
-- Head 0: the owner comes back by itself, adds need not wake it.
redis.call(
  'HSET', KEYS[1], 'seq', seq + 1, 'nonce', ARGV[7], 'claimed', claimed + #late / 2, 'head', 0,
  'last', string.format('%.0f', now)
)
return {'ok', seq + 1, ARGV[7], now, due or '', batch, shift or ''}
