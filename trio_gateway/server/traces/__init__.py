"""Spans of requests, sent to a collector for OTLP over HTTP. Loaded only where `traces` is set.

It imports `api` and `records` of the server, and everything below those.
"""
