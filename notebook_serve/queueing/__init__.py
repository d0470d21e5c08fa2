"""The queue: jobs, policies, the scheduler, the cost model, and the statistics of waiting.

It may import only the files at the top that every room may import. It has no thread and no clock.
"""
