"""The HTTP routes. Each is a plain function, which FastAPI runs in a thread, so that none blocks the event loop."""
