"""The endpoints: one method of a handler for each row of `api/endpoints.py`.

A handler gets the row and the request as a `Call`, and returns an Answer (`responses`); it knows
nothing of ASGI. `direct` calls those of the endpoints that an engine answers, `routes` all others,
as Quart's views. Each handler has one purpose: `requests` and `forms` for engines' answers,
`upstream`, `models`, `operations`, `ollama`. Nothing is decided here that `relay` or `models` could
decide. Only `gateway` imports it.
"""
