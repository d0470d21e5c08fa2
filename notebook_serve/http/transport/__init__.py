"""The listening socket, uvicorn in its own thread, and client disconnects."""
