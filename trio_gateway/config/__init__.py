"""From a Lua file to a checked, frozen `GatewayConfig`.

What enters: the path of a file (`locate.py` finds it). What leaves: the structs of `schema.py`
with notes, or a ConfigError that has every error with the path of its field. `config_loader.py`
runs the file (`lua_sandbox.py`, `prelude.lua`), and a reader for each table checks what it left.
What a user likely means is hinted at by `familiar_words.py`, `lua_messages.py` and `remarks.py`.

It may import `gguf`, for estimates of memory, and nothing else of trio_gateway. `engine_types.py`
names engine kinds as text, so that no engine is imported here.
"""
