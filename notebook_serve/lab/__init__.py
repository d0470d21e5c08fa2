"""Laboratory: load tests, comparisons and calibration on a real server.

It may import `server` and all that lies below it.
"""
