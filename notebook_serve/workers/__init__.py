"""Workers: where a batch runs, which is a thread or a supervised process.

It may import `models` and `queueing`.
"""
