-- behind(meta, first, last): of what must be reached, two each in ARGV from `first` to `last`
-- (watermark field, least offset), the field of the first that has not been reached; else nil.
local function behind(meta, first, last)
  for i = first, last, 2 do
    local reached = redis.call('HGET', meta, ARGV[i]) or '-1'
    if tonumber(reached) < tonumber(ARGV[i + 1]) then
      return ARGV[i]
    end
  end
end
