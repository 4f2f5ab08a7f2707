"""The HTTP server below the app: sockets, TLS, connections, what each request owns.

In come connections (`listeners.py`, `tls.py`), within limits (`limits.py`); out go ASGI calls
with a RequestState and an Upload in their scope (`scopes.py`, `upload.py`), and for what is
refused, an error in the shape of the client's API (`refusal.py`). What is changed in hypercorn
(`repairs.py`, `limits.py`, `websocket_stream.py`) takes effect by `install.py` only.

It knows no models and no engines: it imports `server.dumps`, `server.api` and what is below
`server`.
"""
