"""The stereo branch: encoder, proposals and hypothesis embedding (spec sections 3 to 5)."""
