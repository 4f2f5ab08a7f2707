"""KV carry-over: the caches of an engine's slots outlive the engine, as files in one folder.

`slots.py` is one engine's part of it, from its launch arguments to its last save; `carryover.py`
owns the store and what this run has learned. In go an engine's client, its facts and the requests
that wait for it; out come files, and the tokens that a request need not wait for again. What to
save and restore is decided in `policy.py`, from plain numbers.

May import `engine.clients`, `engine.scheduling`'s vocabulary, and what is below them.
"""
