"""Training: losses, optimiser, schedule, sharding, checkpoints and the loop (spec `training.md`)."""
