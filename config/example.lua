-- A workstation with one large GPU: two chat models that do not fit in memory together, and a
-- small embedding model that stays loaded alongside. Copy this file to gateway.lua, put your own
-- paths in, and check the result with:
--   trio-gateway check -c gateway.lua

-- Where things are on this machine. The environment variables are optional.
local llama = env("LLAMA_CPP", "/opt/llama.cpp/bin")
local gguf = env("GGUF", "/srv/models")

server = {
  -- Loopback only, on IPv4 and IPv6. For the whole network: "0.0.0.0:7777", and the line that
  -- `trio-gateway key` prints, in api_keys = { … }.
  listen_v4 = "127.0.0.1:7777",
  listen_v6 = "[::1]:7777",

  health_check_timeout = 5, -- seconds for one health check
  engine_startup_timeout = 180, -- a 30B model takes time to load from a slow disk
  engine_idle_timeout = 600, -- unused for that long: the engine stops, the GPU is free

  -- Tokens reserved for an answer when a request names no maximum; it affects which variant is
  -- chosen.
  default_answer_tokens = 2048,

  -- One file per request, with the request and its answer, for debugging.
  -- dumps_dir = "dumps",
}

-- What every llama-server here gets. The gateway adds --host and --port.
local common = {
  "--gpu-layers", "999",
  "--flash-attn", "on",
  "--jinja", -- the chat template of the model itself, tools included
}

-- One variant: this model with room for `context` tokens in one request. More context takes
-- more memory, so a variant may need further arguments to fit.
local function variant(file, context, more)
  local args = { "--model", gguf .. "/" .. file, "--ctx-size", tostring(context), "--parallel", "1" }
  return {
    binary = llama .. "/llama-server",
    context = context,
    args = concat_arrays(concat_arrays(args, common), more or {}),
  }
end

-- Counts the tokens of a prompt while no engine of the model runs, so that the smallest variant
-- that the request fits into is started at once.
local function tokenization(file, per_message)
  return {
    binary = llama .. "/llama-tokenize",
    extra_args = { "--model", gguf .. "/" .. file },
    extra_tokens_per_message = per_message, -- what the chat template puts around a message
    extra_tokens = 8, -- and once around the whole prompt
  }
end

local qwen = "Qwen3-30B-A3B-Instruct-2507-Q4_K_M.gguf"
local coder = "Qwen2.5-Coder-32B-Instruct-Q4_K_M.gguf"

-- A smaller KV cache, for long contexts.
local small_cache = { "--cache-type-k", "q8_0", "--cache-type-v", "q8_0" }

models = {
  {
    name = "qwen3-30b",
    aliases = { "default" }, -- clients may also ask for this name
    description = "Qwen3 30B A3B Instruct, for chat and tools",
    engine = presets.engines.llamacpp,
    tokenization = tokenization(qwen, 5),
    variants = {
      variant(qwen, 16384),
      variant(qwen, 65536, small_cache),
      -- The longest context leaves some of the experts on the CPU. It starts slowly, and one
      -- prompt may take a long time.
      merge_tables(
        variant(qwen, 131072, concat_arrays(small_cache, { "--n-cpu-moe", "12" })),
        { engine_startup_timeout = 300, engine_idle_timeout = 1800 }
      ),
    },
  },
  {
    name = "coder-32b",
    description = "Qwen2.5 Coder 32B Instruct, for the editor",
    engine = presets.engines.llamacpp,
    tokenization = tokenization(coder, 5),
    engine_idle_timeout = 1200, -- for all variants of this model
    variants = {
      variant(coder, 8192),
      variant(coder, 16384),
      variant(coder, 32768, small_cache),
    },
  },
  {
    -- The pool `secondary` is separate: this engine runs alongside a chat model.
    name = "embeddings",
    description = "nomic-embed-text v1.5",
    engine = presets.engines.llamacpp_secondary,
    pinned = true, -- if engines of the pool have to stop for another, this one is stopped last
    variants = {
      {
        binary = llama .. "/llama-server",
        context = 2048,
        parallel = 4, -- requests at a time; --ctx-size is for all four together
        args = {
          "--model", gguf .. "/nomic-embed-text-v1.5.Q8_0.gguf",
          "--embeddings", "--pooling", "mean",
          "--ctx-size", tostring(4 * 2048), "--parallel", "4",
          "--batch-size", "2048", "--ubatch-size", "2048",
        },
      },
    },
  },
}
