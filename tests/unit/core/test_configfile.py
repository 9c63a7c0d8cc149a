"""The configuration: typed, merged, checked, and its generated files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segwright.core.configdocs import default_yaml, json_schema
from segwright.core.configfile import (
    load_settings,
    main,
    merge,
    pipeline_settings,
    pipeline_settings_from_file,
    training_settings_from_file,
)
from segwright.core.errors import SettingsError
from segwright.core.settings import ConfigurationOverride, PipelineSettings, Settings, TrainingSettings, to_plain

CONFIG_FOLDER = Path(__file__).parents[3] / "config"
DATASET = {"Dataset004_Hippocampus": {"path": "/data/Dataset004_Hippocampus"}}


def problem(config: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(config)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_nothing_given_is_all_defaults() -> None:
    assert load_settings({}) == Settings() == load_settings()


def test_the_generated_files_are_up_to_date() -> None:
    """Else run `python -m segwright.core.configfile --write`."""
    assert (CONFIG_FOLDER / "config.yaml").read_text(encoding="utf-8") == default_yaml()
    assert json.loads((CONFIG_FOLDER / "schema" / "config.schema.json").read_text(encoding="utf-8")) == json_schema()


def test_the_default_configuration_is_the_default() -> None:
    assert load_settings(yaml.safe_load(default_yaml())) == Settings()
    assert load_settings(CONFIG_FOLDER / "config.yaml") == Settings()


def test_all_configurations_that_come_along_are_valid() -> None:
    files = sorted(CONFIG_FOLDER.rglob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        assert load_settings(file).pipelines["default"]


def test_commented_examples_can_be_uncommented() -> None:
    """The dataset block of the default file, without its leading comment signs."""
    lines = default_yaml().splitlines()
    start = lines.index("# datasets:")
    block = lines[start : lines.index("", start)]
    example = yaml.safe_load("\n".join(line[2:] for line in block))
    example["datasets"]["Dataset004_Hippocampus"]["path"] = "/data/x"
    assert load_settings(example).datasets["Dataset004_Hippocampus"].splits.folds == 5


def test_write_makes_both_files(tmp_path: Path) -> None:
    main(["--write", "--folder", str(tmp_path)])
    assert (tmp_path / "config.yaml").read_text(encoding="utf-8") == default_yaml()
    assert json.loads((tmp_path / "schema" / "config.schema.json").read_text(encoding="utf-8")) == json_schema()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"training": {"epohcs": 5}}, "training.epohcs is not known; did you mean training.epochs?"),
        ({"defaults": {"training": {"epohcs": 5}}}, "training.epohcs is not known; did you mean training.epochs?"),
        (
            {"pipelines": {"fast": {"training": {"epohcs": 5}}}},
            "pipelines.fast.training.epohcs is not known; did you mean pipelines.fast.training.epochs?",
        ),
        ({"datasetz": {}}, "datasetz is not known; did you mean datasets?"),
        ({"epochs": 5}, "epochs is not known; did you mean training.epochs?"),
        ({"mirroring": False}, "mirroring is not known; did you mean training.mirroring or prediction.mirroring?"),
        ({"device": "cpu"}, "device is not known; did you mean execution.device?"),
        ({"defaults": {"trainig": {}}}, "trainig is not known; did you mean training?"),
        ({"execution": {"devise": "cpu"}}, "execution.devise is not known; did you mean execution.device?"),
        ({"training": {"epochs": "many"}}, "training.epochs is `many` but must be a whole number or null (at least 1)"),
        ({"training": {"epochs": 0}}, "training.epochs is 0 but must be at least 1"),
        ({"training": {"epochs": 2.5}}, "training.epochs is 2.5 but must be a whole number or null (at least 1)"),
        ({"training": {"epochs": True}}, "training.epochs is true but must be a whole number or null (at least 1)"),
        ({"training": {"momentum": None}}, "training.momentum is null but must be a number (at least 0, at most 1)"),
        ({"training": {"momentum": 1.5}}, "training.momentum is 1.5 but must be at least 0, at most 1"),
        ({"prediction": {"tile_step": 0}}, "prediction.tile_step is 0.0 but must be more than 0, at most 1"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate is nan but must be"),
        ({"training": {"mirroring": 1}}, "training.mirroring is 1 but must be true or false"),
        ({"training": {"schedule": "shrt"}}, "training.schedule is `shrt` but must be one of standard, short, smoke"),
        (
            {"training": {"folds": "some"}},
            "training.folds is `some` but must be a list of whole numbers or all or null",
        ),
        ({"training": {"folds": 0}}, "training.folds is 0 but must be a list of whole numbers or all or null"),
        ({"training": [1]}, "training is [1] but must be a section with options below it"),
        ({"report": {"title": 3}}, "report.title is 3 but must be a text"),
        ({"results": 3}, "results is 3 but must be a text"),
        ({"plugins": "my_losses.py"}, "plugins is `my_losses.py` but must be a list of texts"),
        ({"datasets": {"D": {}}}, "datasets.D.path is missing; name the dataset's folder"),
        (
            {"datasets": {"a/b": {"path": "x"}}},
            "datasets.a/b: the name becomes a folder, so it may only hold letters, digits and _",
        ),
        ({"datasets": {"D": {"path": "x", "batchs": 1}}}, "datasets.D.batchs is not known; did you mean"),
        ({"datasets": {"D": {"path": "x", "splits": {"folds": 1}}}}, "datasets.D.splits.folds is 1 but must be at"),
        (
            {"pipelines": {"my-one": {}}},
            "pipelines.my-one: the name becomes a folder, so it may only hold letters, digits and _",
        ),
        (
            {"pipelines": {"data": {}}},
            "pipelines.data: the name `data` is taken by another folder; choose another name",
        ),
        (
            {"planning": {"overrides": {"2d": {"patch": [1, 2]}}}},
            "planning.overrides.2d.patch is not known; did you mean planning.overrides.2d.patch_size?",
        ),
        ({"planning": {"spacing_mm": [1, "x", 1]}}, "planning.spacing_mm is [1, 'x', 1] but must be a list of numbers"),
    ],
)
def test_every_mistake_is_one_line_that_says_what_is_right(config: dict[str, Any], message: str) -> None:
    assert problem(config).startswith(message)


@pytest.mark.parametrize(
    ("section", "option", "text", "value"),
    [
        ("training", "epochs", "5", 5),
        ("training", "epochs", "1e3", 1000),
        ("training", "epochs", "null", None),
        ("training", "epochs", "None", None),
        ("training", "weight_decay", "3e-5", 3e-5),
        ("training", "mirroring", "false", False),
        ("training", "folds", "all", "all"),
        ("training", "folds", "[1, 2]", (1, 2)),
        ("training", "folds", ["1", "2"], (1, 2)),
        ("training", "optimizer", "adamw", "adamw"),
        ("training", "class_weights", "[1, 2.5]", (1.0, 2.5)),
        ("training", "initial_model", "null", None),
        ("training", "initial_model", "12", "12"),
        ("planning", "gpu_memory_gb", "24", 24.0),
        ("planning", "overrides", "{2d: {patch_size: [64, 64]}}", {"2d": ConfigurationOverride(patch_size=(64, 64))}),
        ("planning", "add", {"a": {"inherits_from": "2d"}}, {"a": {"inherits_from": "2d"}}),
    ],
)
def test_text_becomes_the_type_of_the_option(section: str, option: str, text: Any, value: Any) -> None:
    """Snakemake's --config delivers text."""
    built = getattr(getattr(load_settings({section: {option: text}}).defaults, section), option)
    assert built == value and type(built) is type(value)


def test_a_section_on_the_command_line_merges() -> None:
    file = {"defaults": {"training": {"epochs": 7, "seed": 3}}}
    for section in ({"epochs": "5"}, "{epochs: 5}"):
        training = load_settings(file, {"training": section}).defaults.training
        assert (training.epochs, training.seed) == (5, 3)


def test_a_section_with_nothing_below_it_changes_nothing() -> None:
    config = {"defaults": {"training": {"epochs": 7}}, "training": None, "pipelines": {"a": {"training": None}}}
    loaded = load_settings(config)
    assert loaded.defaults.training.epochs == loaded.pipelines["a"].training.epochs == 7


def test_pipelines_merge_over_the_defaults() -> None:
    loaded = load_settings(
        {
            "datasets": DATASET,
            "defaults": {"training": {"epochs": 10, "seed": 1}},
            "pipelines": {"resenc": {"planning": {"planner": "resenc_l"}, "training": {"epochs": 20}}, "same": None},
        }
    )
    assert list(loaded.pipelines) == ["default", "resenc", "same"]
    resenc = pipeline_settings(loaded, "resenc")
    assert (resenc.training.epochs, resenc.training.seed, resenc.planning.planner) == (20, 1, "resenc_l")
    assert pipeline_settings(loaded, "default") == pipeline_settings(loaded, "same") == loaded.defaults
    assert loaded.datasets["Dataset004_Hippocampus"].batches == 32
    with pytest.raises(SettingsError, match="there is no pipeline fast"):
        pipeline_settings(loaded, "fast")


def test_a_pipeline_can_undo_a_named_default() -> None:
    loaded = load_settings(
        {
            "planning": {"overrides": {"2d": {"batch_size": 4}}},
            "pipelines": {"free": {"planning": {"overrides": {"2d": None}}}},
        }
    )
    assert loaded.pipelines["default"].planning.overrides["2d"].batch_size == 4
    assert loaded.pipelines["free"].planning.overrides == {}


def test_settings_survive_a_round_trip_through_plain_values() -> None:
    config = {"datasets": DATASET, "training": {"folds": [0, 1]}, "plugins": ["a.py"], "pipelines": {"b": {}}}
    loaded = load_settings(config)
    assert load_settings(json.loads(json.dumps(to_plain(loaded)))) == loaded


def test_files_merge_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {epochs: 5, seed: 2}\nexecution: {device: cpu}\n")
    (tmp_path / "b.json").write_text('{"training": {"epochs": 6}}')
    loaded = load_settings(tmp_path / "a.yaml", str(tmp_path / "b.json"))
    assert (loaded.defaults.training.epochs, loaded.defaults.training.seed) == (6, 2)
    assert loaded.execution.device == "cpu"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {epochs: 5", "not valid YAML"),
        ("training: {epochs: 5, epochs: 6}", "the key `epochs` is written twice"),
        ("- 1\n- 2", "must hold options"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("a: &a [*a]", "too many or too deeply nested"),
        ("? [1, 2]\n: 3", "not valid YAML"),
        ("true: 3", "put it in quotes"),
        ("x: " + "[" * 200 + "]" * 200, "too many or too deeply nested"),
    ],
)
def test_what_is_no_configuration_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    found = problem(tmp_path / "bad.yaml")
    assert message in found and "bad.yaml" in found


def test_aliases_cannot_blow_up(tmp_path: Path) -> None:
    """Nine levels of nine aliases stand for 387 million nodes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    assert "too many" in problem(tmp_path / "bomb.yaml")
    (tmp_path / "long.yaml").write_text("#" * 1_000_001)
    assert "larger than" in problem(tmp_path / "long.yaml")
    assert "cannot be read" in problem(tmp_path / "missing.yaml")
    assert "cannot be read (Is a directory)" in problem(tmp_path)


def test_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("# größe\ntraining: {epochs: 5}".encode("latin-1"))
    assert problem(tmp_path / "latin.yaml") == (
        f"{tmp_path}/latin.yaml: not text in UTF-8 (invalid start byte); save it as UTF-8"
    )


@pytest.mark.parametrize(
    "content",
    ["epochs: 5\nmomentum: 0.9", "training: {epochs: 5, momentum: 0.9}\nprediction: {gaussian: false}",
     '{"epochs": 5, "momentum": 0.9}', "defaults: {training: {epochs: 5, momentum: 0.9}}"],
)  # fmt: skip
def test_training_settings_from_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "s.yaml").write_text(content)
    assert training_settings_from_file(tmp_path / "s.yaml") == TrainingSettings(epochs=5, momentum=0.9)


def test_other_settings_from_file(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("prediction: {gaussian: false}\nplanning: {planner: resenc}")
    assert not pipeline_settings_from_file(file).prediction.gaussian
    assert pipeline_settings_from_file(file).planning.planner == "resenc"
    assert pipeline_settings_from_file(None) == PipelineSettings()
    file.write_text("epohcs: 5")
    with pytest.raises(SettingsError, match=r"training\.epohcs is not known; did you mean training\.epochs\?"):
        training_settings_from_file(file)


def test_schema_agrees_with_the_settings() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())
    good = yaml.safe_load(default_yaml()) | {"datasets": DATASET, "training": {"epochs": 5, "folds": "all"}}
    assert not list(validator.iter_errors(good))
    for bad in ({"training": {"epohcs": 5}}, {"training": {"epochs": 0}}, {"pipelines": {"data": {}}}, {"x": 1}):
        assert list(validator.iter_errors(bad))


@given(st.integers(1, 10**6), st.floats(1e-9, 1e3), st.booleans())
@settings(max_examples=25, deadline=None)
def test_numbers_survive_as_text(epochs: int, rate: float, flag: bool) -> None:
    values = {"epochs": epochs, "learning_rate": rate, "compile": flag}
    text = {key: str(value) for key, value in values.items()}
    assert load_settings({"training": text}) == load_settings({"training": values})


def test_merge_changes_neither_side() -> None:
    base, over = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merge(base, over) == {"a": {"b": 1, "c": 2}}
    assert (base, over) == ({"a": {"b": 1}}, {"a": {"c": 2}})
