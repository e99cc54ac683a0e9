"""Experiments of ZeroStereo: the inpainting network, and BridgeDepth on the pairs made with it."""
