"""Experiments of StereoDiff: the pair network and the video diffusion model, both on procedural clips."""
