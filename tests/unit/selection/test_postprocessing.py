from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json, write_json
from segwright.core.labels import Labels
from segwright.evaluation.metrics import case_metrics, mean_metrics
from segwright.selection.components import Rule, apply_rules
from segwright.selection.postprocessing import determine_postprocessing, read_rules, write_no_postprocessing

READER = "SimpleITKIO"
LABELS = {"background": 0, "a": 1, "b": 2}


def decide_plainly(references: dict, predictions: dict, labels: Labels) -> tuple[list[Rule], dict, dict]:
    """Method 12.2 word for word: every candidate is applied to all cases and these are evaluated anew."""

    def means(maps: dict) -> tuple:
        return mean_metrics(
            [case_metrics(references[c], maps[c], labels) for c in sorted(maps)], labels.foreground_keys
        )

    keys = labels.foreground_keys
    current, rules, first = dict(predictions), [], means(predictions)
    candidates = [Rule(tuple(keys))] + ([Rule((key,)) for key in keys] if len(keys) > 1 else [])
    for index, rule in enumerate(candidates):
        tried = {case: apply_rules(array, (rule,)) for case, array in current.items()}
        (mean, foreground), (new_mean, new_foreground) = means(current), means(tried)
        if index == 0:
            accept = new_foreground["Dice"] > foreground["Dice"] and not any(
                new_mean[key]["Dice"] < mean[key]["Dice"] for key in keys
            )
        else:
            (key,) = rule.labels_or_regions
            accept = new_mean[key]["Dice"] > mean[key]["Dice"]
        if accept:
            rules.append(rule)
            current = tried
    return rules, first[0], means(current)[0]


def blobs(rng: np.random.Generator, structures: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """A reference of one block a structure, and a prediction with false islands."""
    reference = np.zeros((4, 12, 14), np.uint8)
    for value in range(1, structures + 1):
        z, y, x = rng.integers(0, [2, 8, 10])
        reference[z : z + 2, y : y + 4, x : x + 4] = value
    prediction = reference.copy()
    islands = rng.random(reference.shape) < noise
    prediction[islands] = rng.integers(0, structures + 1, int(islands.sum()))
    return reference, prediction


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (LABELS, None),
        ({"background": 0, "a": 1}, None),
        ({"background": 0, "a": 1, "b": 2, "c": 3, "d": 4, "ignore": 5}, None),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3}, [1, 2, 3]),
        ({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, [1, 2]),
        ({"background": 0, "whole": [1, 2, 4], "core": [1, 4], "tip": [4]}, [2, 1, 4]),  # 3 is not declared
        ({"background": 0, "whole": [1, 4], "tip": 4, "ignore": 5}, [1, 4]),
    ],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_same_decisions_and_numbers_as_the_definition(
    labels: dict, order: list | None, seed: int, make_dataset: Callable, make_fold: Callable, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    structures = Labels.from_json({"labels": labels, "regions_class_order": order}).foreground_labels[-1]
    pairs = {f"case_{i}": blobs(rng, structures, rng.choice([0.0, 0.03, 0.2])) for i in range(4)}
    references = {case: reference for case, (reference, _) in pairs.items()}
    predictions = {case: prediction for case, (_, prediction) in pairs.items()}
    if "ignore" in labels:
        for reference in references.values():
            reference[:, :3] = labels["ignore"]
    dataset = make_dataset(labels, references, order)
    halves = [dict(list(predictions.items())[part]) for part in (slice(2), slice(2, 4))]
    folds = [make_fold(k, half) for k, half in enumerate(halves)]
    output = tmp_path / "postprocessing.json"
    result = determine_postprocessing(folds, dataset, READER, "full", output)
    rules, before, after = decide_plainly(references, predictions, dataset.labels)
    assert list(result.rules) == rules
    assert read_rules(output) == tuple(rules)
    record = read_json(output)
    for key_text_, key in zip(record["before"]["mean"], sorted(before, key=str), strict=True):
        for metric in before[key]:
            np.testing.assert_equal(record["before"]["mean"][key_text_][metric], before[key][metric])
            np.testing.assert_equal(record["after"]["mean"][key_text_][metric], after[key][metric])
    assert len(record["tested"]) == 1 + (len(before) if len(before) > 1 else 0)


@pytest.mark.parametrize("empty_reference", [False, True])
def test_a_case_without_predicted_foreground(
    empty_reference: bool, make_dataset: Callable, make_fold: Callable, tmp_path: Path
) -> None:
    """Nothing is removed from it, and it counts in the means; with many labels their boxes are searched at once."""
    labels = {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4}
    pairs = {f"case_{number}": blobs(np.random.default_rng(number), 4, 0.1) for number in range(3)}
    references = {case: reference for case, (reference, _) in pairs.items()}
    predictions = {case: prediction for case, (_, prediction) in pairs.items()}
    predictions["case_1"] = np.zeros_like(predictions["case_1"])
    if empty_reference:
        references["case_1"] = np.zeros_like(references["case_1"])
    dataset = make_dataset(labels, references)
    result = determine_postprocessing([make_fold(0, predictions)], dataset, READER, "full", tmp_path / "output.json")
    rules, before, after = decide_plainly(references, predictions, dataset.labels)
    assert list(result.rules) == rules and rules
    record = read_json(tmp_path / "output.json")
    for when, wanted in (("before", before), ("after", after)):
        found = [mean["Dice"] for mean in record[when]["mean"].values()]
        np.testing.assert_equal(sorted(found), sorted(mean["Dice"] for mean in wanted.values()))


def test_step_one_needs_every_structure_not_to_fall(
    make_dataset: Callable, make_fold: Callable, tmp_path: Path
) -> None:
    """Removing all islands helps `a` more than it hurts `b` (whose true part is an island): refused in step 1,
    and `a` alone is accepted in step 2."""
    reference = np.zeros((1, 6, 20), np.uint8)
    reference[0, :, :5] = 1
    reference[0, 0:2, 18:20] = 2
    prediction = reference.copy()
    prediction[0, 4:6, 8:12] = 1  # false island, larger loss for `a`
    dataset = make_dataset(LABELS, {"A": reference})
    output = tmp_path / "postprocessing.json"
    result = determine_postprocessing([make_fold(0, {"A": prediction})], dataset, READER, "full", output)
    assert result.rules == (Rule((1,)),)
    first, alone_a, alone_b = read_json(output)["tested"]
    assert first["accepted"] is False and first["dice_after"] < first["dice_before"]
    assert alone_a["accepted"] is True and alone_a["dice_after"] == 1.0
    assert alone_b["accepted"] is False and "does not rise" in alone_b["decided_by"]


def test_nan_means_no(make_dataset: Callable, make_fold: Callable, tmp_path: Path) -> None:
    """`b` never occurs: the foreground mean is NaN, so step 1 is refused, and step 2 still helps `a`."""
    reference = np.zeros((1, 6, 20), np.uint8)
    reference[0, :, :5] = 1
    prediction = reference.copy()
    prediction[0, 0, 10] = 1
    dataset = make_dataset(LABELS, {"A": reference})
    output = tmp_path / "postprocessing.json"
    result = determine_postprocessing([make_fold(0, {"A": prediction})], dataset, READER, "full", output)
    assert [trial.accepted for trial in result.trials] == [False, True, False]
    assert math.isnan(read_json(output)["tested"][0]["dice_before"])
    assert result.rules == (Rule((1,)),)


def test_equal_is_not_better_and_workers_do_not_matter(
    make_dataset: Callable, make_fold: Callable, tmp_path: Path
) -> None:
    references = {name: blobs(np.random.default_rng(seed), 2, 0.0)[0] for seed, name in enumerate("AB")}
    dataset, fold = make_dataset(LABELS, references), make_fold(0, references)
    one, two = tmp_path / "1.json", tmp_path / "2.json"
    assert determine_postprocessing([fold], dataset, READER, "full", one).rules == ()
    determine_postprocessing([fold], dataset, READER, "full", two, workers=2)
    assert one.read_bytes() == two.read_bytes()
    assert "improves no structure" in read_json(one)["reason"]


def test_no_postprocessing_says_why(tmp_path: Path) -> None:
    write_no_postprocessing(tmp_path / "postprocessing.json", "switched off by selection.postprocessing")
    assert read_rules(tmp_path / "postprocessing.json") == ()
    assert "switched off" in read_json(tmp_path / "postprocessing.json")["reason"]
    write_json(tmp_path / "other.json", {"a": 1})
    with pytest.raises(DamagedFileError, match=r"other\.json"):
        read_rules(tmp_path / "other.json")
