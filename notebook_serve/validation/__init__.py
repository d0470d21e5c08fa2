"""Checks of options and calls, with errors that say what to write instead.

It may import only `records`, `errors`, `display` and `extras`.
"""
