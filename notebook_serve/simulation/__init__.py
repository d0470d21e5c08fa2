"""The simulator: the same policies on a virtual clock, reports, plots and capacity.

It may import `queueing` and `traffic`. It never runs a model and never reads a clock.
"""
