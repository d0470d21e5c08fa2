"""The command line: its arguments, the demo, and a server in the foreground.

It may import all other rooms. ``README.md`` lists its files in reading order.
"""
