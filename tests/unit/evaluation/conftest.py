"""A tiny dataset of label maps on disk."""

from tests.unit.label_maps import make_dataset, make_fold, write_map

__all__ = ["make_dataset", "make_fold", "write_map"]
