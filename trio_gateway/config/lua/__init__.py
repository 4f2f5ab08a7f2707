"""A configuration's program: run in Lua 5.4, without a way out.

The text of a file enters. The global tables that it left come out, as plain values, or a failure
with the line that it is about. All that a program may call is here: its own library
(`prelude.lua`) and `presets`. It may import `config`'s other modules.
"""
