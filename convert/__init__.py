"""Weights from and to PyTorch files, without PyTorch: `python -m convert --help`."""
