"""Checks of options, with the sentence that says what to write instead.

It may import only `errors` and `display`.
"""
