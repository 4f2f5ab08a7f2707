"""Models, engines and hardware, found on this machine, and a configuration that is written of them.

`search.py` is the way in: `places.py` and `candidates.py` say which files there are, `models.py`
what they are, `engines.py` and `machine.py` what there is to run them, `plan.py` with which
contexts, and `written.py` makes the text. `lua_text.py` writes any values as Lua text.

It reads GGUF files and hardware, and imports nothing else of trio_gateway.
"""
