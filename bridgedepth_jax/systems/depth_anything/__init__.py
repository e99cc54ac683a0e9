"""Depth Anything V2 on its own: relative inverse depth of one image."""
