"""Metrics: what is counted of requests and engines, and how Prometheus gets it.

Counting is pure and cheap, as every request is counted: `tallies` has the tables, and a request is
folded into them once, when it is over. What can be read off the gateway at any time (queues,
engines, memory) is read when somebody asks. It imports `records` of the server, and everything
below that.
"""
