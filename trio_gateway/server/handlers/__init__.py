"""The endpoints as Quart's views: one method for each row of `api/endpoints.py`.

Quart's request enters (`incoming` takes from it what all handlers need), Quart's Response leaves
(`responses`). `routes` makes the app of the table and the handlers; each handler has one purpose:
`requests` and `forms` for engines' answers, `upstream`, `models`, `operations`, `ollama`. Nothing
is decided here that `relay` or `models` could decide. Only `gateway` imports it.
"""
