-- What the container of `Containerfile` serves until you mount a gateway.lua of your own at
-- /config/gateway.lua: the small model of the built-in configuration. Inside a container the gateway
-- has to listen on all addresses; `--publish` decides who can reach it. So a key is asked for.

local function variant(context)
  return {
    binary = presets.binaries.embedded,
    context = context,
    args = { "--model", presets.models.smollm2, "--ctx-size", tostring(context), "--parallel", "1" },
  }
end

server = {
  listen_v4 = "0.0.0.0:7777",
  api_keys = { env("TRIO_GATEWAY_KEY") },
  default_answer_tokens = 512,
}

models = {
  {
    name = "smollm2-135m",
    description = "SmolLM2 135M Instruct, on the CPU",
    engine = presets.engines.llamacpp,
    variants = { variant(2048), variant(8192) },
  },
}
