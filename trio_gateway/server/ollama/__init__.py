"""Ollama's API, translated: its requests to OpenAI's, and OpenAI's answers back to its own.

A body enters `request` and leaves as an OllamaCall, which says which endpoint is asked, and with
what; an engine's answer enters `answer` whole, or `stream` piece by piece, and leaves as Ollama's
JSON or lines of it. `models` describes models as Ollama does. All but `stream` is pure. It imports
`relay` for what a request waits for, and `api`.
"""
