"""Files that the stages hand to each other: splits, indices, inspection records, summaries; and case tables."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segwright.case_table import groups_of, read_case_table, strata_of
from segwright.core.files import bytes_digest
from segwright.core.manifest import read_manifest
from segwright.core.settings import SplitSettings
from segwright.evaluation.metrics import Counts
from segwright.evaluation.summary import CaseResult, make_summary, read_summary
from segwright.inspection.checks import read_checks
from segwright.inspection.fingerprint import build_fingerprint
from segwright.inspection.records import read_batch
from segwright.planned import read_configurations
from segwright.preprocessing.batch import write_index
from segwright.preprocessing.store import PreprocessedStore
from segwright.selection.best import Selection, read_selection
from segwright.selection.components import Rule
from segwright.selection.postprocessing import read_rules
from segwright.splits import fold_of_splits_file, make_splits, read_fold, split_dataset
from tests.fuzz.mutations import mutated, mutated_json
from tests.fuzz.project import FILE, declared_labels, parts, use_unchanged
from tests.fuzz.target import Sample, Sampler, Target


def _splits_sampler() -> Sampler:
    cases = [f"case_{number}" for number in range(5)]
    base = [{"train": cases[:3], "val": cases[3:]}, {"train": cases[2:], "val": cases[:2]}]

    def use(folder: Path) -> None:
        make_splits(cases, SplitSettings(folds=2, file=str(folder / FILE)))

    def draw(rng: random.Random) -> Sample:
        return Sample({FILE: mutated_json(rng, base)}, use, (FILE,))

    use_unchanged({FILE: json.dumps(base).encode()}, use)
    return draw


def _index_files() -> dict[str, Any]:
    cases = {"a": {"file": "cases/a.0.safetensors", "inputs": "x", "content": "y"}}
    return {"version": 1, "data_id": "3d-1", "batch": "batch_0", "cases": cases}


def _index_sampler() -> Sampler:
    """index.json, a batch beside it, and a splits file for its cases."""
    batch = _index_files()
    content = json.dumps(batch).encode()
    index = {"version": 1, "data_id": "3d-1", "batches": {"batch_0": bytes_digest(content)}}
    splits = [{"train": ["a"], "val": ["a"]}]

    def use(folder: Path) -> None:
        store = PreprocessedStore(folder / "index.json")
        _ = [store.file(case) for case in store.case_ids]
        fold_of_splits_file(folder / "splits.json", "all", folder / "index.json")
        write_index([folder / "batch_0.json"], folder / "other" / "index.json")

    def draw(rng: random.Random) -> Sample:
        files = {
            "batch_0.json": content,
            "index.json": json.dumps(index).encode(),
            "splits.json": json.dumps(splits).encode(),
        }
        changed = rng.choice(("batch", "index", "splits"))
        if changed == "batch":
            files["batch_0.json"] = mutated_json(rng, batch)
            files["index.json"] = json.dumps(
                {**index, "batches": {"batch_0": bytes_digest(files["batch_0.json"])}}
            ).encode()
        else:
            files[f"{changed}.json"] = mutated_json(rng, index if changed == "index" else splits)
        return Sample(files, use, ("index.json", "batch_0.json", "splits.json"))

    return draw


def _inspection_sampler() -> Sampler:
    """An inspection batch or one of its side files, as `fingerprint` and `split` read them."""
    made = parts()
    batch, checks = made.batch, made.checks
    sides = {f"values/{name}": content for name, content in made.values.items()}

    def use(folder: Path) -> None:
        read_batch(folder / "batch_0.json")
        build_fingerprint([folder / "batch_0.json"], folder)
        read_checks(folder / "checks.json")
        settings = SplitSettings(folds=2)
        split_dataset([folder / "batch_0.json"], folder / "checks.json", settings, None, folder / "splits")

    def draw(rng: random.Random) -> Sample:
        files = {**sides, "batch_0.json": json.dumps(batch).encode(), "checks.json": json.dumps(checks).encode()}
        name = rng.choice(("batch_0.json", "batch_0.json", "checks.json", rng.choice(tuple(sides))))
        value = {"batch_0.json": batch, "checks.json": checks}.get(name)
        files[name] = mutated(rng, files[name]) if value is None else mutated_json(rng, value)
        cases = tuple(batch["cases"])
        return Sample(files, use, ("batch_0.json", "checks.json", *(Path(side).name for side in sides), *cases))

    use_unchanged(
        {**sides, "batch_0.json": json.dumps(batch).encode(), "checks.json": json.dumps(checks).encode()}, use
    )
    return draw


def _table_sampler() -> Sampler:
    table = "case\tpatient\tage\n" + "".join(f"case_{n}\tp{n // 2}\t{20 + n}\n" for n in range(6))

    def use(folder: Path) -> None:
        read = read_case_table(folder / "table.tsv")
        cases = [f"case_{n}" for n in range(6)]
        groups_of(cases, SplitSettings(group="patient"), read)
        strata_of(cases, SplitSettings(stratify="age"), read)
        make_splits(cases, SplitSettings(folds=2, group="patient", stratify="age"), read)

    def draw(rng: random.Random) -> Sample:
        content = mutated(rng, table.encode(), (b'"a\nb"\t"', b"\xff\xfe", b",;\t\r\n"))
        return Sample({"table.tsv": content}, use, ("table.tsv", "case table", "splits", "case", "group"))

    return draw


def _results() -> dict[str, tuple[Any, Callable[[Path], object]]]:
    """Small result files with their readers."""
    labels = declared_labels()
    counts = {key: Counts(8, 2, 2, 88) for key in labels.foreground_keys}
    summary = make_summary([CaseResult("p", counts, "labelsTr/p", "../p")], labels).to_json()
    selection = Selection("2d", ("2d",), "only one", ("0", "1"), 2, {"2d": 0.5}, 3).to_json()
    return {
        "summary.json": (summary, lambda path: json.dumps(read_summary(path).to_json())),
        "selection.json": (selection, read_selection),
        "postprocessing.json": ({"version": 1, "rules": [Rule((1, (1, 2))).to_json()], "reason": ""}, read_rules),
        "fold_0.json": ({"fold": "0", "train": ["a", "b"], "val": ["c"]}, read_fold),
        "manifest.json": ({"version": 1, "cases": {"a": {"file": "a.nii.gz", "digest": "0" * 64}}}, read_manifest),
        "configurations.json": (parts().configurations, lambda path: read_configurations(path.parent)),
    }


def _results_sampler() -> Sampler:
    kinds = _results()
    for name, (value, use) in kinds.items():
        use_unchanged({name: json.dumps(value).encode()}, lambda folder, use=use, name=name: use(folder / name))

    def draw(rng: random.Random) -> Sample:
        name = rng.choice(tuple(kinds))
        value, use = kinds[name]
        return Sample({name: mutated_json(rng, value)}, lambda folder: use(folder / name), (name,))

    return draw


def result_targets() -> list[Target]:
    return [
        Target("splits", _splits_sampler, 3_000),
        Target("index", _index_sampler, 2_000),
        Target("inspection", _inspection_sampler, 1_500),
        Target("case_table", _table_sampler, 1_500),
        Target("results", _results_sampler, 6_000),
    ]
