"""A configuration's program: run in Lua 5.4, without a way out.

The text of a file enters. The global tables that it left come out, as plain values, or a failure
with the line that it is about. All that a program may call is here: its own library
(`prelude.lua`) and `presets`. It runs in a process of its own (`program.py`, which `helper.py`
starts), because some of what Lua can do has no limit inside of a process. This may import
`config`'s other modules; `program.py` imports none.
"""
