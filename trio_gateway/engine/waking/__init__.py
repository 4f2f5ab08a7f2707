"""Machines that sleep until a request wants the engine that runs on them."""
