"""Workers: the threads and processes that run batches.

It may import `models` and `queueing`. ``README.md`` lists its files in reading order.
"""
