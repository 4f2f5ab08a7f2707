"""Engines: the processes that answer, from the decision to start one until it is gone.

In goes a request for a lease: a model and how many tokens it needs. Out comes a running engine to
send the request to, or why there is none. `manager.py` owns the engines' tasks and does what
`scheduling` decides, `engine.py` is one engine's life, `lease.py` a request's hold on it, and
`overview.py` answers questions.

May import `config` and `gguf`; knows no server, and no model selection.
"""
