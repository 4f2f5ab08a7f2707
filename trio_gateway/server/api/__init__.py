"""The API as data: its endpoints, what requests may say, how errors and events look.

A body enters as bytes and leaves as a ParsedRequest or an ApiError (`request_body`, by the types
in `request_fields`); an answer gets the client's name for its model (`answer_name`); server-sent
events are read and written in `sse`; `errors` has what a client can get instead. `endpoints` is
the table that routing, documents and tests are made of. Pure: no task, no HTTP. It imports
`models`, `engine` and `config` for their types, and nothing else of `server`.
"""
