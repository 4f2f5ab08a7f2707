"""From a Lua file to a checked, frozen `GatewayConfig`.

What enters: the path of a file (`locate.py` finds it). What leaves: the structs of `schema.py`
with notes, or a ConfigError that has every error with the path of its field. `loader.py` has the
file run (`lua/`), and what it left read and checked (`reading/`). `remarks.py` says what is valid
and will not work as it is meant.

It may import `gguf`, for estimates of memory, and nothing else of trio_gateway. `engine_types.py`
names engine kinds as text, so that no engine is imported here.
"""
