"""One process that turns a workstation with llama.cpp into an OpenAI-compatible service."""

__version__ = "0.1.0"
