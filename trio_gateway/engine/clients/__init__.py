"""What the gateway knows about each type of engine, and how it speaks to one.

In: a type of the configuration (`registry.py`). Out: an EngineKind, which is stateless and knows
arguments, addresses and endpoints before a start; and an EngineClient, which speaks to one
running engine: requests, health, limits, slots, counts. A new type is one module here and one
entry in `config/engine_types.py`; see docs/engines.md.

Also here: what an answer says about its tokens (`usage.py`), and `trio-gateway-llama-server`, the
embedded engine's own program (`embedded_server.py`). May import `engine/http`,
`engine/errors.py`, the configuration and leaves; never the engine's life.
"""
