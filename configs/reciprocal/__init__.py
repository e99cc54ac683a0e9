"""Self-supervised stereo and monocular depth: the paper's three stages on KITTI raw, and small ones on rendered pairs."""
