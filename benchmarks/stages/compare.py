"""How far two results are apart, in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def largest(ours: Path, peers: Path) -> str:
    """Largest difference of two float arrays."""
    mine, theirs = np.load(ours), np.load(peers)
    if mine.shape != theirs.shape:
        return f"SHAPES DIFFER: {mine.shape}, {theirs.shape}"
    return f"{np.abs(mine.astype(np.float64) - theirs).max():.1g} at most"


def share_of_voxels(ours: Path, peers: Path) -> str:
    """Voxels of two label maps that differ."""
    mine, theirs = np.load(ours), np.load(peers)
    if mine.shape != theirs.shape:
        return f"SHAPES DIFFER: {mine.shape}, {theirs.shape}"
    return f"{np.count_nonzero(mine != theirs)} of {mine.size} voxels"


def stored_cases(ours: Path, peers: Path) -> str:
    """Images and label maps of a preprocessed case."""
    with np.load(ours) as mine, np.load(peers) as theirs:
        if mine["image"].shape != theirs["image"].shape:
            return f"SHAPES DIFFER: {mine['image'].shape}, {theirs['image'].shape}"
        apart = np.abs(mine["image"].astype(np.float64) - theirs["image"]).max()
        voxels = np.count_nonzero(mine["label"] != theirs["label"])
    return f"image {apart:.1g} at most, labels {voxels} voxels"


def equal_json(ours: Path, peers: Path) -> str:
    return "none" if ours.read_text() == peers.read_text() else "DIFFERENT RESULTS"
