"""HTTP to engines: connections, one request and its answer, WebSockets, and our own questions.

In: an Opener, which knows where the engine is and how to get there. Out: an Exchange that streams
an answer, an EngineSocket, or the Answer to a question of the gateway itself (`control.py`). What
is open to an engine belongs to its Connections, which keep it for the next request or close it, and
can end it all at once.

Nothing here knows what kind of engine it speaks to, or owns a task. Nothing is tried twice, but for
a request that got nothing over a kept connection. May import `engine/errors.py` and leaves.
"""
