"""Experiments of BridgeDepth: the paper's, the default model's and a tiny one."""
