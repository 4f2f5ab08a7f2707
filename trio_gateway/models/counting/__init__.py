"""How many tokens a prompt has, exactly where that is possible.

In: a request's fields and its body. Out: a Count that says who counted, or None: then the bounds
of `models/need` decide. `counter.py` asks in turn: what it remembers, the running engine, a
tokenizer's command, the vocabulary and template of the model's GGUF. The last runs in a helper
process (`vocabulary_worker.py` and what it imports), as a file's content is not trusted.

May import: `models/need`, the GGUF reader, the configuration, `engine/process`. It knows engines
by a Protocol only. Prompts are secrets: nothing here logs or keeps one.
"""
