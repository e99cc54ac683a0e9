"""Experiments. Each file has `get_config()`; its docstring says how to run it and what to expect."""
