"""The depth-to-image generator of BRIDGE (spec `mono-training.md` sections 7 to 9): see ../README.md."""
