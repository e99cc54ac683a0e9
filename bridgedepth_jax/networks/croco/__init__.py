"""Networks of the CroCo family that see two images and give points of both in the first one's camera (spec `video.md` 1)."""
