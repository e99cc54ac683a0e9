"""One folder a system: its network, losses, and the row by which the shared floors know it."""
