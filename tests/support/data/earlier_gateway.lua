-- A configuration as people wrote them for the earlier gateway (LLM-GW). As it listens on the
-- network without keys, it needs one new line.

server = {
	allow_unauthenticated = true, -- the new line
	listen_v4 = { "127.0.0.1:7777", "192.168.1.20:7777" },
	listen_v6 = { "[::1]:7777", "[fd00::20]:7777" },
	health_check_timeout = 5.00, -- required param, must be > 0
	engine_startup_timeout = 60.0, -- required param, must be > 0
	engine_idle_timeout = 120.0, -- required param, must be > 0
	dumps_dir = "dumps",
	clear_dumps_on_start = true,
}

llama_dir = [[/home/user/llama.cpp/build/bin]]
models_dir = os.getenv("MODELS_DIR") or [[/mnt/data/GGUF models]]
windows_model = [[C:\Models\new\tiny.gguf]]

-- a helper that builds the arguments
local function get_args(model, context, extra)
	local args = {
		"--no-webui", "--port", "8080",
		"-m", models_dir .. "/" .. model,
		"-c", string.format("%d", context),
		"-ngl", tostring(math.floor(99.0)),
	}
	for _, arg in ipairs(extra or {}) do
		table.insert(args, arg)
	end
	return args
end

local function get_variant(model, context, extra)
	return {
		binary = llama_dir .. [[/llama-server]],
		args = get_args(model, context, extra),
		tokenize = true,
		context = context,
	}
end

qwen_model = {
	engine = presets.engines.llamacpp,
	name = "qwen3-30b-instruct",
	connect = "http://127.0.0.1:8080",
	tokenization = {
		binary = llama_dir .. "/llama-tokenize",
		extra_args = { "-m", models_dir .. "/qwen3.gguf" },
		extra_tokens_per_message = 8,
		extra_tokens = 16,
	},
	variants = {
		get_variant("qwen3.gguf", 40960 / 2),
		get_variant("qwen3.gguf", 40960, { "-ctk", "q8_0", "-ctv", "q8_0" }),
	},
}

-- the same model again, cloned with merge_tables, its variants with extra args
qwen_thinking_model = merge_tables(qwen_model, {
	name = "qwen3-30b-thinking",
	engine_idle_timeout = 600.0,
	variants = {},
})
for i, variant in ipairs(qwen_model.variants) do
	qwen_thinking_model.variants[i] = merge_tables(variant, {
		args = concat_arrays(variant.args, { "--reasoning-budget", "-1" }),
	})
end

-- and once more, by copying tables
local function clone(value)
	if type(value) ~= "table" then return value end
	local result = {}
	for k, v in pairs(value) do
		result[k] = clone(v)
	end
	return result
end

qwen_slow_model = clone(qwen_model)
qwen_slow_model.name = string.format("%s-%s", "qwen3-30b", "cpu")
qwen_slow_model.tokenization = nil
for _, variant in pairs(qwen_slow_model.variants) do
	variant.connect = "http://127.0.0.1:8081"
	variant.engine_startup_timeout = 300.0
	for i, arg in ipairs(variant.args) do
		if arg == "8080" then variant.args[i] = "8081" end
		if arg == "-ngl" then variant.args[i + 1] = "0" end
	end
end

embedding_model = {
	engine = presets.engines.llamacpp_secondary,
	name = "embeddings",
	connect = "http://127.0.0.1:8090",
	health_check_timeout = 2.5,
	tokenization = {
		binary = "/home/user/llama.cpp/build/bin/llama-tokenize",
		base_args = { "--log-disable", "--stdin", "--ids", "--no-bos" },
		extra_args = { "-m", windows_model },
	},
	variants = {
		{
			binary = "/home/user/llama.cpp/build/bin/llama-server",
			args = { "--embeddings", "--port", "8090", "-m", windows_model },
			context = 2048,
		},
	},
}

models = { qwen_model, qwen_thinking_model, qwen_slow_model, embedding_model }
