"""Evaluation of disparities on whole benchmarks, by every protocol at once."""
