"""Functions as models: checks of a function, of what it returns, and `each`."""
