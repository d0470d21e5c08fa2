"""Models: pipelines, functions and encoders that prepare inputs, run batches and finish answers.

It may import `validation`, `demo` and the files at the top that every room may import.
"""
