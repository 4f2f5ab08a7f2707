"""What GGUF files say about their models.

`metadata.py` is the one reader: it takes a path and hands back the header's keys and values, or
raises BadGguf. `header.py` is what memory estimates, model lists and the Ollama API ask of it.
Vocabularies are counted with by `models/counting`, which reads them through `metadata.py`.

Nothing here knows a configuration, an engine or a request; it imports nothing of trio_gateway.
"""
