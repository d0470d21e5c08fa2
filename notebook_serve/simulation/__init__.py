"""The simulator: the same policies on a virtual clock, reports, plots and capacity.

It imports only `queueing`, `traffic` and the modules that every room may import. It never runs a
model and never reads a clock. See README.md in this folder.
"""
