"""The API described: `/openapi.json` and `docs/api.md`, both made of the table of endpoints.

Nothing enters but `api/endpoints.py`, the types of requests and those of the gateway's own answers
(`schemas`); an OpenAPI document (`document`) or the page's tables (`markdown`) leave. It imports
`ollama` and `api` of the server, and the types of answers wherever they are.
"""
