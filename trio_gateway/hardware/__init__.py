"""What the machine has: its devices, their memory, and who holds it.

`machine.py` is the way in: `Machine().read()` gives a `Reading` of all devices, the RAM last. Each
vendor's way to tell is a module of its own. All of it blocks: call it in a thread.

Nothing here knows a configuration, an engine or a request; it imports nothing of trio_gateway.
"""
