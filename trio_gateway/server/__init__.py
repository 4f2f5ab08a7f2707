"""HTTP towards the clients: from an accepted connection to an answer's last byte.

A request comes in through `http` (hypercorn's connections, limits, what a request owns), passes
`access` (may this client call?), and reaches a method of `handlers` by the table in `api`. What
an engine has to answer goes through `relay`. `gateway.py` puts all of it together, and
`gateway_server.py` runs it with listeners and signals.

From the roof to the ground; nothing imports upwards: gateway_server, gateway, handlers,
openapi, ollama, relay, access and forms, http, dumps, api. All may import `models`, `engine` and
`config`.
"""
