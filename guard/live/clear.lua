-- Takes down an alarm, if that very one stands, and keeps its transition.
--
-- KEYS  alarms, lives, transitions
-- ARGV  category, life of the alarm, transition (JSON), how many transitions to keep

local standing = redis.call('HGET', KEYS[1], ARGV[1])
if not standing or cjson.decode(standing).life ~= tonumber(ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f', tonumber(ARGV[2]) + 1))
redis.call('RPUSH', KEYS[3], ARGV[3])
redis.call('LTRIM', KEYS[3], -tonumber(ARGV[4]), -1)
return 1
