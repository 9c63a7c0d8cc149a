"""Making raw datasets in nnU-Net v2's layout out of other layouts (method 1.4)."""
