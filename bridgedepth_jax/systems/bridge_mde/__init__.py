"""BRIDGE (arXiv 2509.25077): monocular depth trained on generated data (spec `mono-training.md`): see README.md."""
