"""The command line's longer parts: the demo and a server in the foreground.

It may import all other rooms.
"""
