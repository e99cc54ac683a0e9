"""Self-supervised stereo and monocular depth that teach each other."""
