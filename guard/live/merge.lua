-- Counts one batch exactly once and returns what there is then: the rules of `Book` and `State`
-- in guard/live, in whole numbers.
--
-- KEYS  state, alarms, lives, transitions, points, sequence
-- ARGV  sequence, batch (JSON), how many points to keep, seconds to remember the sequence

local function whole(number) return string.format('%.0f', number) end

local state, alarms, lives = KEYS[1], KEYS[2], KEYS[3]

local function life_of(category) return tonumber(redis.call('HGET', lives, category) or '0') end

local function zeros(count)
  local made = {}
  for i = 1, count do made[i] = 0 end
  return made
end

local function behind(tally, part, exchanges, slopes)
  tally.since = tally.since + part.skipped
  if part.exceedances == 0 then
    tally.at = tally.at + part.skipped
    return
  end
  local sunk = exchanges - tally.at
  for i, slope in ipairs(slopes) do
    local begin = math.max(0, tally.heights[i] - sunk)
    local risen = slope * part.exceedances - (part.last - part.skipped - part.exceedances)
    tally.heights[i] = math.max(begin + risen, part.ends[i])
    tally.peaks[i] = math.max(tally.peaks[i], begin + part.tops[i], part.peaks[i])
  end
  tally.exceedances = tally.exceedances + part.exceedances
  -- Only where there are any: replicas of an older version read it, too.
  if part.unjudged then tally.unjudged = (tally.unjudged or 0) + part.unjudged end
  tally.at = exchanges + part.last
end

local function take(batch)
  local exchanges = tonumber(redis.call('HGET', state, 'exchanges') or '0')
  for category, life in pairs(batch.lives) do
    redis.call('HSET', lives, category, whole(math.max(life, life_of(category))))
  end
  for category, slopes in pairs(batch.slopes) do
    local life = life_of(category)
    local field = 'tally:' .. category
    local stored = redis.call('HGET', state, field)
    local tally = stored and cjson.decode(stored)
    local touched = false
    if not tally or tally.life < life then
      tally = { life = life, since = exchanges, exceedances = 0, at = exchanges,
                heights = zeros(#slopes), peaks = zeros(#slopes) }
      touched = true
    end
    local part = batch.parts[category]
    if (batch.lives[category] or 0) ~= life then
      tally.since = tally.since + batch.exchanges
      tally.at = tally.at + batch.exchanges
      touched = true
    elseif part then
      behind(tally, part, exchanges, slopes)
      touched = true
    end
    if touched then redis.call('HSET', state, field, cjson.encode(tally)) end
  end
  for category, gain in pairs(batch.gains) do
    local field = 'mass:' .. category
    local mass = tonumber(redis.call('HGET', state, field) or '0')
    redis.call('HSET', state, field, whole(math.floor(mass * batch.fade) + gain))
  end
  redis.call('HSET', state, 'exchanges', whole(exchanges + batch.exchanges))
end

local function stand(raised)
  local life = life_of(raised.category)
  if redis.call('HEXISTS', alarms, raised.category) == 1 or raised.life < life then return end
  redis.call('HSET', alarms, raised.category, raised.alarm)
  redis.call('HSET', lives, raised.category, whole(raised.life))
  redis.call('RPUSH', KEYS[4], raised.transition)
  redis.call('LTRIM', KEYS[4], -tonumber(ARGV[3]), -1)
end

local sequence = tonumber(redis.call('GET', KEYS[6]) or '0')
if tonumber(ARGV[1]) > sequence then
  local batch = cjson.decode(ARGV[2])
  sequence = tonumber(ARGV[1])
  redis.call('SET', KEYS[6], ARGV[1], 'EX', ARGV[4])
  take(batch)
  for _, raised in ipairs(batch.raised) do stand(raised) end
  for _, point in ipairs(batch.points) do redis.call('RPUSH', KEYS[5], point) end
  if #batch.points > 0 then redis.call('LTRIM', KEYS[5], -tonumber(ARGV[3]), -1) end
end

return { redis.call('HGETALL', state), redis.call('HGETALL', alarms),
         redis.call('HGETALL', lives), whole(sequence) }
