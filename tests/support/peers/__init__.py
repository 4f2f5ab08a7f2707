"""llama.cpp's own server tests, run on the engine and through the gateway: `nox -s peers`."""
