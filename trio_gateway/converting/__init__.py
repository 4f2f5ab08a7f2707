"""Configurations of other programs, as one of ours: llama-swap's YAML, llama.cpp's presets.

`convert.py` is the way in: it reads a text (`yaml_text.py`, `preset_file.py`), has it described
(`llama_swap*.py`, `router_presets.py`) in the terms of `description.py`, and `written.py` makes
Lua text of that. What has no counterpart is a remark, never dropped without a word.

It reads the headers of models' files, and nothing else; it writes nothing.
"""
