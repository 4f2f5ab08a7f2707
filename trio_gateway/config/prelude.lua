-- What a configuration may call. Runs once per configuration, before it.
-- `host` holds Python functions; each returns `true, value` or `false, message`. They stay
-- upvalues of the functions here, so that a configuration never gets hold of a Python object.
local host, instruction_limit, hook_interval = ...

local error, ipairs, load, pairs, pcall, select, setmetatable, tostring, type =
  error, ipairs, load, pairs, pcall, select, setmetatable, tostring, type
local pack, unpack, sethook, getinfo = table.pack, table.unpack, debug.sethook, debug.getinfo

local shared = {} -- the globals that all files of one configuration share
local running = {} -- files being run, outermost first: an include of one of them is a cycle

-- Raises an error that names the line of the configuration that led here: chunk names of files
-- begin with "@", this prelude's does not. (Levels given to error() go wrong at tail calls.)
local function fail(message)
  local level, frame = 2, getinfo(2, "Sl")
  while frame and frame.source:sub(1, 1) ~= "@" do
    level = level + 1
    frame = getinfo(level, "Sl")
  end
  error(frame and frame.short_src .. ":" .. frame.currentline .. ": " .. message or message, 0)
end

-- The instruction limit. A plain pcall would swallow its error, so ours raises it again; the
-- same holds for running out of memory.
local used, fatal = 0, nil
local function count()
  used = used + hook_interval
  if used >= instruction_limit and not fatal then
    local _, message = pcall(fail, "more than " .. instruction_limit .. " instructions (an endless loop?)")
    fatal = message
  end
  if fatal then error(fatal, 0) end
end

function shared.pcall(f, ...)
  local result = pack(pcall(f, ...))
  if fatal then error(fatal, 0) end
  if not result[1] and result[2] == "not enough memory" then error(result[2], 0) end
  return unpack(result, 1, result.n)
end

for _, name in ipairs { "assert", "error", "ipairs", "next", "pairs", "select", "tonumber", "tostring", "type" } do
  shared[name] = _G[name]
end
for _, name in ipairs { "math", "string", "table", "utf8" } do
  shared[name] = {}
  for key, value in pairs(_G[name]) do shared[name][key] = value end
end
shared.string.dump = nil -- gives bytecode, which nothing here may load

local function check(ok, ...)
  if not ok then fail((...)) end
  return ...
end

local function expect(kind, value, what)
  if type(value) ~= kind then fail(what .. ": expected a " .. kind .. ", got " .. type(value)) end
end

function shared.env(name, default)
  expect("string", name, "env")
  local value = host.getenv(name)
  if value == nil then value = default end
  if value == nil then fail("environment variable " .. name .. " is not set (env('" .. name .. "', default) gives it a default)") end
  return value
end

-- Lua's own: nil where the variable is not set, so that `os.getenv("X") or "default"` works.
shared.os = { getenv = function(name, default)
  expect("string", name, "os.getenv")
  local value = host.getenv(name)
  if value == nil then return default end
  return value
end }

function shared.concat_arrays(a, b)
  expect("table", a, "concat_arrays, first argument")
  expect("table", b, "concat_arrays, second argument")
  local out = {}
  for _, value in ipairs(a) do out[#out + 1] = value end
  for _, value in ipairs(b) do out[#out + 1] = value end
  return out
end

function shared.merge_tables(a, b)
  expect("table", a, "merge_tables, first argument")
  expect("table", b, "merge_tables, second argument")
  local out, array_length = {}, #b
  for key, value in pairs(a) do out[key] = value end
  for key, value in pairs(b) do
    local in_array = math.type(key) == "integer" and key >= 1 and key <= array_length
    if not in_array then out[key] = value end
  end
  for _, value in ipairs(b) do out[#out + 1] = value end
  return out
end

local function lazy(kind)
  return setmetatable({}, {
    __index = function(_, name) return check(host.preset(kind, tostring(name))) end,
    __newindex = function() fail("presets are read-only") end,
  })
end
shared.presets = { engines = lazy "engines", binaries = lazy "binaries", models = lazy "models" }

local run_file

-- Each file has an environment of its own, whose `include` and `find_gguf` are relative to that
-- file, also when one of its functions is called from another.
local function environment(folder)
  local own = {}
  function own.include(path)
    expect("string", path, "include")
    return run_file(folder, path)
  end
  function own.find_gguf(path)
    expect("string", path, "find_gguf")
    local found, array = check(host.find_gguf(folder, path)), {}
    for file in found:gmatch("[^\n]+") do array[#array + 1] = file end
    return array
  end
  return setmetatable(own, { __index = shared, __newindex = shared })
end

function run_file(folder, path)
  local source, chunk_name, own_folder, identity = check(host.read(folder, path))
  for _, other in ipairs(running) do
    if other == identity then fail("include of '" .. path .. "' never ends: it is being run already") end
  end
  local chunk, message = load(source, "@" .. chunk_name, "t", environment(own_folder))
  if not chunk then error(message, 0) end
  running[#running + 1] = identity
  local result = pack(pcall(chunk))
  running[#running] = nil
  if not result[1] then error(result[2], 0) end
  return unpack(result, 2, result.n)
end

return function(path)
  sethook(count, "", hook_interval)
  local result = pack(pcall(run_file, "", path))
  sethook()
  if not result[1] then
    local message = result[2]
    if fatal then message = fatal end
    if type(message) ~= "string" then message = "error object of type " .. type(message) end
    return false, message
  end
  return true, shared
end
