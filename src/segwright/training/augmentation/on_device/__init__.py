"""Drawn samples augmented by torch, where the network trains: each twin's counterpart for tensors.

Draws are the loader's own (``SamplePipeline.draw``); only who computes differs. Nothing here waits for the device: all
numbers of a twin are Python numbers, indices are computed where they are used, and no decision depends on a voxel.
"""
