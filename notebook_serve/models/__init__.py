"""Models: what makes a pipeline or a function prepare, run and finish a batch.

It may import `validation`, `demo` and the files at the top that every room may import.
"""
