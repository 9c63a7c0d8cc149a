"""Which pipelines a plugin has a part in, and plugins that cannot be told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segwright.core.configchecks import require_what_is_named
from segwright.core.configfile import load_settings
from segwright.core.errors import SettingsError
from segwright.core.plugins import may_use_plugins
from segwright.core.registry import load_plugins


@pytest.mark.parametrize(
    ("sections", "used"),
    [
        ({}, False),
        ({"planning": {"planner": "resenc"}, "training": {"network": "residual_unet", "loss": "dice"}}, False),
        ({"training": {"augmentation": "none", "epochs": 3}, "planning": {"overrides": {"2d": {}}}}, False),
        ({"planning": {"planner": "mine"}}, True),
        ({"planning": {"plans_file": "plans.json"}}, True),
        ({"planning": {"add": {"3d_small": {"inherits_from": "3d_fullres"}}}}, True),
        ({"training": {"network": "mine"}}, True),
        ({"training": {"loss": "mine"}}, True),
        ({"training": {"augmentation": "mine"}}, True),
    ],
)
def test_a_pipeline_uses_plugins_where_it_names_one_or_its_plans_may(sections: dict[str, Any], used: bool) -> None:
    settings = load_settings({"plugins": ["mine.py"], "pipelines": {"other": sections}})
    assert may_use_plugins(settings.pipelines["other"]) is used
    assert not may_use_plugins(settings.pipelines["default"])


def test_two_plugins_of_one_file_name_are_refused(tmp_path: Path) -> None:
    """Their digests are recorded by file name, so a change of one of them would go unnoticed."""
    files = [tmp_path / folder / "losses.py" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text("x = 1\n")
    with pytest.raises(SettingsError, match=r"a/losses\.py and .*b/losses\.py have the same file name; rename one"):
        require_what_is_named(load_settings({"plugins": list(map(str, files))}))
    with pytest.raises(SettingsError, match="have the same file name"):
        load_plugins(files)
    assert list(load_plugins([files[0], files[0]])) == ["losses.py"]
