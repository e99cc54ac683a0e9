"""What is kept: checkpoints, training checkpoints, published names."""
