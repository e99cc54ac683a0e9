"""The monocular branch: Depth Anything V2 (spec section 2)."""
