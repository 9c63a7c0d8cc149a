"""Comparisons with the public nnU-Net v2, run with its own Python environment (see README.md)."""
