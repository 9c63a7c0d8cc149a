"""How good label maps are: counts, Dice and IoU per structure, and nnU-Net v2's summary.json."""
