"""What `scripts/infer.py` and `scripts/depth_anything.py` do around the networks: find, read, run, write."""
