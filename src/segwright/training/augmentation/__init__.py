"""Augmentation: one transform a file, each a random draw and its deterministic twin (method 6)."""
