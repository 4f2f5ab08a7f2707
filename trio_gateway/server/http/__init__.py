"""The HTTP server below the app: sockets, TLS, connections, what each request owns.

In come connections (`listeners.py`, `tls.py`), within limits (`places.py`, `connection_counts.py`);
out go ASGI calls with a RequestState and an Upload in their scope (`scopes.py`, `upload.py`), and
for what is refused, an error in the shape of the client's API (`refusal.py`). What is changed in
hypercorn takes effect by `install.py` only. It knows no models and no engines.
"""
