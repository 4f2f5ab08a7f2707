"""From a checked request to its answer: choose, lease, send, read, present.

A ParsedRequest, a form or a path enters `prepare` and leaves as an Ask; the Ask enters `relay` and
leaves as an Answer, whole or as a stream (`engine_stream`; `early_answer` for one that is long in
coming). A client's WebSocket is passed through by `websocket`. AnswerObservers look on from the
outside. It imports `access`, `forms`, `http` and `api` of the server, and everything below it.
"""
