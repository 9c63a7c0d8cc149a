"""Version of each stage. Raise a number when the results of that stage change: everything below runs again.

The numbers stand in the ``params`` of the workflow's rules (design, decision 6): unlike time stamps of scripts they
survive a checkout, and unlike nothing at all they notice changed library code. A test compares a digest of each stage's
modules with the recorded one and reminds of this file.
"""

from __future__ import annotations

STAGE_VERSION: dict[str, int] = {
    "inspection": 3,
    "splits": 2,
    "planning": 1,
    "preprocessing": 3,
    "training": 6,
    "inference": 5,
    "evaluation": 1,
    "selection": 1,
    "sharing": 1,
    "reporting": 1,
}

STAGE_MODULES: dict[str, tuple[str, ...]] = {
    "inspection": ("core/dataset.py", "core/labels.py", "core/geometry.py", "core/cropping.py", "images", "inspection"),
    "splits": ("case_table.py", "splits.py"),
    "planning": ("core/architecture.py", "core/plans.py", "core/slices.py", "planning"),
    "preprocessing": ("core/cropping.py", "core/slices.py", "images", "preprocessing"),
    "training": ("networks", "training"),
    "inference": ("images", "networks", "preprocessing", "training/previous_stage.py", "inference"),
    "evaluation": ("evaluation",),
    "selection": ("evaluation", "selection"),
    "sharing": ("sharing",),
    "reporting": ("reporting",),
}
"""What each stage's results depend on, relative to the package."""
