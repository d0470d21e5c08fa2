"""Sockets, uvicorn in its own thread, and disconnects of clients."""
