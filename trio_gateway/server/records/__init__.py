"""What happened to each request, as data: never its prompt, its answer or its key.

A `RequestRecord` is written by its request's own task, from the first byte to the last, and is in
the `RequestBook` meanwhile. Who looks on makes a `RequestRow` of it. Complete ones are published on
the bus. It imports `api` of the server, and everything below that.
"""
