"""Files and names a configuration asks for are looked up before anything starts."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from segwright.core.configchecks import require_what_is_named
from segwright.core.configfile import load_settings
from segwright.core.errors import SettingsError
from segwright.core.registry import Registry
from segwright.core.settings import PlanningSettings, TrainingSettings


def test_built_in_names_are_those_of_the_registries() -> None:
    from segwright.networks.build import NETWORKS
    from segwright.planning.planner import PLANNERS
    from segwright.training.augmentation.pipeline import AUGMENTATIONS
    from segwright.training.loss import LOSSES

    registries: dict[str, Registry[Any]] = {
        "planner": PLANNERS,
        "network": NETWORKS,
        "loss": LOSSES,
        "augmentation": AUGMENTATIONS,
    }
    declared = {
        field.name: field.metadata["built_in"]
        for settings in (PlanningSettings, TrainingSettings)
        for field in fields(settings)
        if "built_in" in field.metadata
    }
    assert declared.keys() == registries.keys()
    for name, names in declared.items():
        assert set(names) <= set(registries[name].names()), name  # plugins of other tests may have added more


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"plugins": ["x.py"]}, "plugins: there is no file x.py"),
        ({"planning": {"planner": "resenk"}}, r"planning.planner is `resenk` but .*; did you mean resenc\?"),
        ({"training": {"loss": "focal"}}, "training.loss is `focal` but without a plugin .*name the plugin"),
        ({"pipelines": {"a": {"training": {"network": "mine"}}}}, "pipelines.a.training.network is `mine`"),
        ({"training": {"augmentation": "off"}}, "training.augmentation is `off` .* one of default, none"),
        ({"planning": {"plans_file": "p.json"}}, "planning.plans_file: there is no file p.json"),
        ({"training": {"initial_model": "m.safetensors"}}, "training.initial_model: there is no file m.safetensors"),
        ({"datasets": {"A": {"path": "a", "case_table": "t.tsv"}}}, "datasets.A.case_table: there is no file t.tsv"),
        (
            {"datasets": {"A": {"path": "a", "splits": {"group": "site"}}}},
            "datasets.A.splits.group is `site` but there",
        ),
        (
            {"datasets": {"A": {"path": "a", "splits": {"stratify": "s"}}}},
            "datasets.A.splits.stratify is `s` but there",
        ),
        ({"datasets": {"A": {"path": "a", "splits": {"group_pattern": "("}}}}, "group_pattern is `.` but no regular"),
    ],
)
def test_what_is_not_there_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        require_what_is_named(load_settings(config))


def test_what_is_there_or_may_come_is_accepted(tmp_path: Path) -> None:
    plugin, table = tmp_path / "mine.py", tmp_path / "cases.tsv"
    plugin.touch()
    table.touch()
    with_plugin = load_settings({"plugins": [str(plugin)], "training": {"loss": "focal"}})
    require_what_is_named(with_plugin)
    plugin.unlink()
    with pytest.raises(SettingsError, match=r"plugins: there is no file .*mine\.py"):
        require_what_is_named(with_plugin)
    splits = {"group": "site", "group_pattern": None}
    require_what_is_named(load_settings({"datasets": {"A": {"path": "a", "case_table": str(table), "splits": splits}}}))
    require_what_is_named(load_settings({"datasets": {"A": {"path": "a", "splits": {"group": "x", "file": "s.json"}}}}))


def test_an_initial_model_may_be_made_by_another_pipeline_of_this_run() -> None:
    def require(pipeline: str, made_by: str) -> None:
        model = f"./results/{made_by}/2d/fold_0/model.safetensors"
        pipelines = {"default": {}, "old": {}, pipeline: {"training": {"initial_model": model}}}
        require_what_is_named(load_settings({"datasets": {"A": {"path": "a"}}, "pipelines": pipelines}))

    require("fine", "A/default")
    require("default", "A/old")
    with pytest.raises(SettingsError, match=r"pipelines.fine.training.initial_model is .*, a result of the pipeline"):
        require("fine", "A/fine")
    for nobody_makes in ("B/default", "A/odl", "A/data"):
        with pytest.raises(SettingsError, match=r"fine.training.initial_model: there is no file results/"):
            require("fine", nobody_makes)


def test_home_folder_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    settings = load_settings(
        {
            "results": "~/out",
            "plugins": ["~/a.py", "b~.py"],
            "datasets": {"A": {"path": "~/A"}},
            "report": {"title": "~/"},
        }
    )
    assert settings.results == "/home/me/out" and settings.plugins == ("/home/me/a.py", "b~.py")
    assert settings.datasets["A"].path == "/home/me/A" and settings.report.title == "~/"
    assert load_settings({"results": "~other/out"}).results == "~other/out"


@pytest.mark.parametrize("spelling", ["out/x/", "./out/x", "out//x", "out/./x", ".//out/x/."])
def test_one_path_has_one_spelling(spelling: str) -> None:
    """Snakemake compares paths as text."""
    dataset = {"path": "a", "case_table": spelling, "splits": {"file": spelling}}
    settings = load_settings({"results": spelling, "plugins": [spelling], "datasets": {"A": dataset}})
    assert settings.results == "out/x" and settings.plugins == ("out/x",)
    assert settings.datasets["A"].case_table == settings.datasets["A"].splits.file == "out/x"
    assert load_settings({"results": "./"}).results == "."
    with pytest.raises(SettingsError, match=r"datasets\.A\.path is missing"):
        load_settings({"datasets": {"A": {"path": ""}}})
