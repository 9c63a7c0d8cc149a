"""Integrity checks and fingerprint of a raw dataset, in one read of each image (method 1.5, 2)."""
