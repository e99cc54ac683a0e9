"""Weights from and to PyTorch files, without PyTorch: `bridgedepth convert --help`."""
