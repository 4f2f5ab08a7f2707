"""Multipart forms, which go to an engine as they come.

In comes an Upload; out goes a FormUpload that knows the form's `model` and is a BodySource for an
engine, more than once while the form is small. `multipart.py` reads along and decides, `spool.py`
keeps what came before the engine was known.

It imports `server.http`, `server.api` and the BodySource of `engine.http`.
"""
