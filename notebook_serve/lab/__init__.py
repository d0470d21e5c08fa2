"""The laboratory: load tests, comparisons and calibration against a real server.

It may import `server` and all that lies below it.
"""
