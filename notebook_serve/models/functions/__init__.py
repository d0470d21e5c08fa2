"""Functions as models: `FunctionModel`, the checks of a function and its outputs, and `each`."""
