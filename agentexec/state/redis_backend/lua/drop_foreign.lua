-- KEYS: keys. ARGV: the type that each of them has. Removes keys of another type, and returns a text about each.
local dropped = {}
for i, key in ipairs(KEYS) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' and kind ~= ARGV[i] then
    redis.call('DEL', key)
    dropped[#dropped + 1] = string.sub(key, 1, 200) .. ' (a ' .. kind .. ' instead of a ' .. ARGV[i] .. ')'
  end
end
return dropped
