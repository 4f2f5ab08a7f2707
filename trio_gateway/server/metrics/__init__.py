"""Metrics: what is counted of requests and engines, and how Prometheus gets it.

Counting is pure and cheap, as every request is counted: `tallies` has the tables, and requests that
are over are folded into them, many at a time. What can be read off the gateway at any time (queues,
engines, memory) is read when somebody asks. It imports `records` of the server, and everything
below that.
"""
