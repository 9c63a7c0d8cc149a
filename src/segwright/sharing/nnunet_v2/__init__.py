"""Models of nnU-Net v2, in and out. Nothing that is read is unpickled, imported or executed."""
