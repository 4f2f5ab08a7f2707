"""Models, engines and hardware, found on this machine, and a configuration that is written of them.

`lua_text.py` writes values as Lua text; whoever writes a configuration uses it. What is found is
read with `gguf`, and it imports nothing else of trio_gateway.
"""
