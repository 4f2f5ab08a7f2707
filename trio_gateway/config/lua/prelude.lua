-- What a configuration may call. Runs once per configuration, before it.
-- `host` holds Python functions; each returns `true, value…` or `false, message`. They stay
-- upvalues of the functions here, so that a configuration never gets hold of a Python object.
local host, instruction_limit, hook_interval, cpu_limit_s = ...

local error, ipairs, load, pairs, pcall, select, setmetatable, tostring, type =
  error, ipairs, load, pairs, pcall, select, setmetatable, tostring, type
local pack, unpack, sort, table_concat = table.pack, table.unpack, table.sort, table.concat
local sethook, getinfo, integer_or_float, utf8_length = debug.sethook, debug.getinfo, math.type, utf8.len
local next, clock = next, os.clock

local shared = {} -- the globals that all files of one configuration share
-- The files being run, outermost first, each { identity =, chunk_name = }: an include of one of
-- them is a cycle.
local running = {}

local run_file

-- Raises an error that names the line of the configuration that led here: chunk names of files
-- begin with "@", this prelude's does not. (Levels given to error() go wrong at tail calls.)
-- Where run_file called its chunk, another file begins, which the line must not be taken from.
local function fail(message)
  local level, frame, callee = 2, getinfo(2, "Slf"), nil
  while frame and frame.source:sub(1, 1) ~= "@" do
    if frame.func == run_file and callee == pcall then
      frame = nil
    else
      level, callee = level + 1, frame.func
      frame = getinfo(level, "Slf")
    end
  end
  if frame then error(frame.short_src .. ":" .. frame.currentline .. ": " .. message, 0) end
  -- A tail call (`return env("X")`) has left no line, but the file is known.
  local file = running[#running]
  error(file and file.chunk_name .. ": " .. message or message, 0)
end

-- Calls into Python. A Python exception would be a Python object in Lua; the only one that can
-- come is lupa's, for a string that is not UTF-8. Lua's own error can be the end of the memory.
local function ask(python_function, ...)
  local answer = pack(pcall(python_function, ...))
  if not answer[1] and type(answer[2]) == "string" then error(answer[2], 0) end
  if not answer[1] then fail("a string that is not UTF-8 text") end
  if not answer[2] then fail(answer[3]) end
  return unpack(answer, 3, answer.n)
end

-- The limits of instructions and of time, which instructions that call C may take much of. A plain
-- pcall would swallow their errors, so ours raises them again; the same holds for running out of
-- memory.
local used, fatal, started = 0, nil, clock()
local function limit_passed()
  if used >= instruction_limit then return "more than " .. instruction_limit .. " instructions" end
  if clock() - started > cpu_limit_s then return ("more than %g s of a processor's time"):format(cpu_limit_s) end
end
local function count()
  used = used + hook_interval
  local passed = not fatal and limit_passed()
  if passed then
    local _, message = pcall(fail, passed .. " (an endless loop?)")
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
-- Methods of strings (`("x"):rep(3)`) are found in Lua's own table, so it is removed there as well.
shared.string.dump, string.dump = nil, nil -- gives bytecode, which nothing here may load

local function expect(kind, value, what)
  if type(value) ~= kind then fail(what .. ": expected a " .. kind .. ", got " .. type(value)) end
end

function shared.env(name, default)
  expect("string", name, "env")
  local value = ask(host.getenv, name)
  if value == nil then value = default end
  if value == nil then fail("environment variable " .. name .. " is not set (env('" .. name .. "', default) gives it a default)") end
  return value
end

-- Lua's own: nil where the variable is not set, so that `os.getenv("X") or "default"` works.
shared.os = { getenv = function(name, default)
  expect("string", name, "os.getenv")
  local value = ask(host.getenv, name)
  if value == nil then return default end
  return value
end }

local function positive_integers(t)
  local keys = {}
  for key in pairs(t) do
    if integer_or_float(key) == "integer" and key >= 1 then keys[#keys + 1] = key end
  end
  sort(keys)
  return keys
end

-- A nil in the middle of an array is a misspelt name; ipairs would stop there silently.
local function append(out, array, what)
  for index, key in ipairs(positive_integers(array)) do
    if key ~= index then fail(what .. ": element " .. index .. " is nil (an undefined name?)") end
    out[#out + 1] = array[key]
  end
end

function shared.concat_arrays(a, b)
  expect("table", a, "concat_arrays, first argument")
  expect("table", b, "concat_arrays, second argument")
  local out = {}
  append(out, a, "concat_arrays, first argument")
  append(out, b, "concat_arrays, second argument")
  return out
end

function shared.merge_tables(a, b)
  expect("table", a, "merge_tables, first argument")
  expect("table", b, "merge_tables, second argument")
  local out, of_a, of_b = {}, positive_integers(a), positive_integers(b)
  local last = of_a[#of_a] or 0
  for key, value in pairs(a) do out[key] = value end
  for key, value in pairs(b) do out[key] = value end
  for _, key in ipairs(of_b) do out[key] = a[key] end
  for index, key in ipairs(of_b) do out[last + index] = b[key] end
  return out
end

local function lazy(kind)
  return setmetatable({}, {
    __index = function(_, name) return ask(host.preset, kind, tostring(name)) end,
    __newindex = function() fail("presets are read-only") end,
  })
end
shared.presets = { engines = lazy "engines", binaries = lazy "binaries", models = lazy "models" }

local function lines(text)
  local array = {}
  for line in text:gmatch("[^\n]+") do array[#array + 1] = line end
  return array
end

-- Of `discover`: a folder, or a table of folders and what its models are to have. Texts go to
-- Python in one string, with a NUL byte behind each.
local function texts(value, what)
  local joined = {}
  expect("table", value, what)
  for index, key in ipairs(positive_integers(value)) do
    if key ~= index then fail(what .. ": element " .. index .. " is nil (an undefined name?)") end
    expect("string", value[key], what .. ", element " .. index)
    if value[key]:find("\0", 1, true) then fail(what .. ": a text with a NUL byte in it") end
    joined[index] = value[key] .. "\0"
  end
  return table_concat(joined)
end

local discover_options = { args = true, binary = true, memory = true }
local function discover_request(folders)
  if type(folders) == "string" then folders = { folders } end
  local paths = texts(folders, "discover")
  if paths == "" then fail("discover: no folder, such as discover { \"/srv/models\" }") end
  for key in pairs(folders) do
    if type(key) == "string" and not discover_options[key] then
      fail("discover: unknown key \"" .. key .. "\"; known: args, binary, memory")
    elseif type(key) ~= "string" and integer_or_float(key) ~= "integer" then
      fail("discover: a key that is a " .. type(key))
    end
  end
  local binary, memory, args = folders.binary, folders.memory, folders.args
  if binary ~= nil then expect("string", binary, "discover: binary") end
  if memory ~= nil and type(memory) ~= "number" then expect("string", memory, "discover: memory") end
  return paths, binary, memory, args ~= nil and texts(args, "discover: args") or ""
end

-- Each file has an environment of its own, whose `include`, `find_gguf` and `discover` are relative
-- to that file, also when one of its functions is called from another.
local function environment(folder)
  local own = {}
  function own.include(path)
    expect("string", path, "include")
    return run_file(folder, path)
  end
  function own.find_gguf(path)
    expect("string", path, "find_gguf")
    local files, names = ask(host.find_gguf, folder, path)
    return lines(files), lines(names)
  end
  function own.discover(folders) return ask(host.discover, folder, discover_request(folders)) end
  return setmetatable(own, { __index = shared, __newindex = shared })
end

function run_file(folder, path)
  local source, chunk_name, own_folder, identity = ask(host.read, folder, path)
  for _, other in ipairs(running) do
    if other.identity == identity then fail("include of '" .. path .. "' never ends: the file is already being run") end
  end
  local chunk, message = load(source, "@" .. chunk_name, "t", environment(own_folder))
  if not chunk then error(message, 0) end
  running[#running + 1] = { identity = identity, chunk_name = chunk_name }
  local result = pack(pcall(chunk))
  running[#running] = nil
  if not result[1] then error(result[2], 0) end
  return unpack(result, 2, result.n)
end

-- What a program left, for Python: a table becomes an array of its keys and values in their order,
-- and what has no form there { kind = what it is }. A table is empty if its global is not wanted.
-- nil and which, if there are more values or bytes of text than that.
local function flatten(globals, wanted, most_values, most_bytes, deepest)
  local values, bytes, open = 0, 0, {}
  local plain

  local function entries_of(t, depth)
    local entries = {}
    for key, value in next, t do
      values = values + 1
      if values > most_values then error("more than " .. most_values .. " values", 0) end
      if bytes > most_bytes then error("more than " .. most_bytes .. " bytes of text", 0) end
      entries[#entries + 1] = type(key) == "table" and { kind = "table" } or plain(key, depth)
      if depth > 0 or not wanted or wanted[key] then
        entries[#entries + 1] = plain(value, depth + 1)
      else
        entries[#entries + 1] = type(value) == "table" and {} or { kind = type(value) }
      end
    end
    return entries
  end

  function plain(value, depth)
    local kind = type(value)
    if kind == "boolean" or kind == "number" then return value end
    if kind == "string" then
      bytes = bytes + #value
      return utf8_length(value) and value or { kind = "bytes" }
    end
    if kind ~= "table" then return { kind = kind } end
    if open[value] then return { kind = "table that contains itself" } end
    if depth > deepest then return { kind = "table nested too deeply" } end
    open[value] = true
    local entries = entries_of(value, depth)
    open[value] = nil
    return entries
  end

  local ok, result = pcall(plain, globals, 0)
  if not ok then return nil, result end
  return result, nil
end

local function start(path)
  sethook(count, "", hook_interval)
  local result = pack(pcall(run_file, "", path))
  sethook()
  if not result[1] then
    local message = result[2]
    if fatal then message = fatal end
    if type(message) ~= "string" then message = "error() without a text, but with a " .. type(message) end
    if not utf8_length(message) then message = message:gsub("[\128-\255]", "?") end
    return false, message
  end
  return true, shared
end

return start, flatten
