"""ZeroStereo (ICCV 2025): stereo pairs from single photographs (spec `zerostereo.md`): see README.md."""
