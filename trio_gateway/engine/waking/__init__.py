"""Machines that sleep until a request wants the engine that runs on them.

They are woken at the start of that engine, by a packet or by a command.
"""
