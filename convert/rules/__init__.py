"""How the original of each system names and stores its weights: one table a system."""
