"""The engine: accepts requests, runs batches on its workers and answers each request once.

It may import `workers`, `models` and `queueing`. It knows nothing of HTTP.
"""
