"""Monocular depth from generated images: the stages of the spec's table, and one for two cores."""
