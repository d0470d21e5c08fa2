"""The queue: jobs, policies, the scheduler, the cost model, and the statistics of waiting.

It imports only the modules that every room may import. It has no thread and no clock. See
README.md in this folder.
"""
