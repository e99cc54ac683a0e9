"""BridgeDepth (ICCV 2025): a stereo matcher and a monocular backbone that correct each other."""
