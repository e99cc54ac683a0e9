"""StereoDiff: video depth with global and local consistency (arXiv 2506.20756): see README.md."""
