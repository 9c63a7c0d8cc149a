"""The report of whole pipelines: every section with its numbers, self-contained, the same bytes each time."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.unit.reporting.conftest import Finished

from segwright.core.dataset import load_dataset
from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json, write_json
from segwright.evaluation.summary import read_summary
from segwright.reporting.overlays import worst_overlays
from segwright.reporting.report import write_report
from segwright.reporting.results import read_results
from segwright.reporting.score_sections import _ct_window

SECTIONS = (
    "At a glance", "Dataset", "Plans", "Training", "Scores", "Selection", "Worst cases", "Postprocessing",
    "Test images", "Run times", "Versions",
)  # fmt: skip


def report_of(run: Finished, output: Path, *, benchmarks: bool = True) -> str:
    folder = run.benchmarks if benchmarks else None
    write_report(run.files, run.dataset, output, title="A <title>", benchmarks=folder)
    return output.read_text()


def sections_of(page: str) -> dict[str, str]:
    found = re.findall(r"<section id=\"[^\"]+\"><h2>(.*?)</h2>(.*?)</section>", page, re.DOTALL)
    return dict(found)


class TagChecker(HTMLParser):
    """Every opened element is closed in order; collects what the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.pictures: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.pictures.append(dict(attrs))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report_of(finished, tmp_path_factory.mktemp("report") / "report.html")


def test_every_section_is_there_in_order(page: str) -> None:
    assert tuple(sections_of(page)) == SECTIONS
    assert "A &lt;title&gt;" in page and "Dataset900_Phantom, pipeline default" in page


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(page: str) -> None:
    checker = TagChecker()
    checker.feed(page)
    assert checker.open == []
    anchors = set(re.findall(r'id="([^"]+)"', page))
    for reference in checker.references:
        assert reference.startswith("data:image/png;base64,") or reference.removeprefix("#") in anchors, reference[:60]
    assert "http" not in page and "<script" not in page
    assert all(picture["alt"] for picture in checker.pictures)


def test_the_same_results_give_the_same_bytes_but_for_times_and_versions(
    finished: Finished, page: str, tmp_path: Path
) -> None:
    assert report_of(finished, tmp_path / "again.html") == page
    moved = Finished(
        shutil.copytree(finished.root, tmp_path / "elsewhere" / "default"), finished.data, finished.dataset, tmp_path
    )
    elsewhere = sections_of(report_of(moved, tmp_path / "moved.html"))
    expected = {name: body for name, body in sections_of(page).items() if name != "Run times"}
    assert elsewhere == expected  # no path of the machine anywhere, and no benchmarks, no section


def test_glance_dataset_and_plans(finished: Finished, page: str) -> None:
    made = sections_of(page)
    for fact in ("<dd>2d</dd>", "<dd>4</dd>", "<dd>2 of 2</dd>"):
        assert fact in made["At a glance"]
    assert "organ" in made["At a glance"] and "median" in made["At a glance"]
    assert made["Dataset"].count("<img") == 1
    assert "All 4 training cases passed all checks" in made["Dataset"]
    assert "ZScore" in made["Dataset"] and "size (voxels) z" in made["Dataset"]
    plans = read_json(finished.root / "plan" / "plans.json")["configurations"]
    assert list(plans) == ["2d", "3d_fullres"]
    for name, entry in plans.items():
        assert f"<td>{name}</td><td>{' × '.join(map(str, entry['patch_size']))}</td>" in made["Plans"]
        assert f"<details><summary>{name}</summary>" in made["Plans"]
    assert "<dt>patch</dt><dd>" in made["Plans"] and "**" not in made["Plans"]


def test_training_shows_curves_and_end_values_of_all_folds(page: str) -> None:
    made = sections_of(page)["Training"]
    assert made.count("<img") == 2  # one picture a configuration
    row = (
        '<td>0</td><td class="number">3</td><td class="number">2</td><td class="number">1.0</td>'  # 3 x 20 s, 2 starts
    )
    assert made.count(row) == 2
    assert '<td class="number">0.500 (3)</td>' in made
    assert "epochs 3; optimizer sgd; seed 7" in made
    assert "<td>2d</td><td>no</td>" in made and "<td>3d_fullres</td><td>yes</td>" in made  # mirroring differs


def test_scores_are_those_of_the_summaries(finished: Finished, page: str) -> None:
    made = sections_of(page)["Scores"]
    assert made.count("<img") == 1
    for name in ("2d", "3d_fullres"):
        summary = read_summary(finished.root / name / "crossval" / "summary.json")
        assert f'<td>{name}</td><td class="number">{summary.foreground_mean["Dice"]:.4f}</td>' in made
        for case in summary.cases:
            for counts in case.counts.values():
                assert f">{counts.dice:.3f}</td>" in made
    assert made.count("<td>phantom_00") == 8  # 4 cases x 2 structures
    assert re.search(r"<tr class=best><td>2d</td>", made)


def test_selection_ranks_the_candidates(finished: Finished, page: str) -> None:
    scores = read_json(finished.root / "selection" / "selection.json")["scores"]
    made = sections_of(page)["Selection"]
    assert f"{scores['3d_fullres'] - scores['2d']:+.4f}" in made
    assert made.index("<td>2d</td>") < made.index("<td>3d_fullres</td>")
    assert "Compared on 4 cases of 2 folds (of 2 planned)." in made


def test_worst_cases_are_three_a_structure_worst_first(finished: Finished, page: str) -> None:
    made = sections_of(page)["Worst cases"]
    summary = read_summary(finished.root / "2d" / "crossval" / "summary.json")
    captions = re.findall(r"<figcaption>(.*?), (?:axial|coronal|sagittal) slice \d+ of \d+\. Dice ([\d.]+);", made)
    for position, key in enumerate(summary.keys):
        ranked = sorted((case.counts[key].dice, case.case_id) for case in summary.cases)[:3]
        expected = [(case_id, f"{dice:.3f}") for dice, case_id in ranked]
        assert captions[3 * position : 3 * position + 3] == expected
    assert "<h3>organ</h3>" in made and re.search(r"reference [\d.]+ ml, predicted [\d.]+ ml", made)


def test_postprocessing_effect_by_structure(finished: Finished, page: str) -> None:
    made = sections_of(page)["Postprocessing"]
    record = read_json(finished.root / "postprocessing.json")
    assert record["rules"], "the stray voxels must be worth removing"
    before, after = (record[side]["foreground_mean"]["Dice"] for side in ("before", "after"))
    assert f"from {before:.4f} to {after:.4f}" in made
    assert f'<td>mean of all</td><td class="number">{before:.4f}</td><td class="number">{after:.4f}</td>' in made
    assert "all together (organ, lesion)" in made and "kept" in made


def test_run_times_are_of_this_pipeline_only(page: str) -> None:
    made = sections_of(page)["Run times"]
    assert '<td>train fold</td><td class="number">2</td><td class="number">2.00</td><td class="number">512</td>' in made
    assert '<td>all</td><td class="number">3</td><td class="number">2.10</td>' in made
    assert made.index("fingerprint") < made.index("train fold")  # as the stages follow each other


def test_versions_name_what_trained_the_models(page: str) -> None:
    made = sections_of(page)["Versions"]
    assert "<td>torch</td><td>2.13.0</td>" in made and "<td>plugin mine.py</td><td>ffffffffffff</td>" in made


def test_ct_is_shown_in_the_window_of_its_foreground(make: Callable[..., Finished]) -> None:
    run = make("ct", shifts={"2d": 1})
    plans = read_results(run.files).plans
    statistics = read_json(run.data / "dataset_fingerprint.json")["foreground_intensity_properties_per_channel"]["0"]
    window = _ct_window(plans)
    assert window == (statistics["percentile_00_5"], statistics["percentile_99_5"])
    summary_file = run.root / "2d" / "crossval" / "summary.json"
    arguments = (read_summary(summary_file), summary_file, run.dataset, plans.reader)
    assert worst_overlays(*arguments, window)[0].png != worst_overlays(*arguments)[0].png


def test_other_images_are_shown_by_their_own_range(finished: Finished) -> None:
    assert _ct_window(read_results(finished.files).plans) is None


@pytest.mark.parametrize("preset", ["regions_ignore", "2d"])
def test_other_kinds_of_data(make: Callable[..., Finished], preset: str, tmp_path: Path) -> None:
    run = make(preset, shifts={"2d": 1})
    made = sections_of(report_of(run, tmp_path / "report.html"))
    names = [run.dataset.labels.name_of(key) for key in run.dataset.labels.foreground_keys]
    assert all(f"<h3>{name}</h3>" in made["Worst cases"] for name in names)
    assert made["Worst cases"].count("<img") == 3 * len(names)
    unit = "whole picture. Dice" if preset == "2d" else " ml"
    assert unit in made["Worst cases"]


def test_trained_on_all_cases(make: Callable[..., Finished], tmp_path: Path) -> None:
    run = make("plain", shifts={"3d_fullres": 0}, folds=["all"])
    made = sections_of(report_of(run, tmp_path / "report.html", benchmarks=False))
    assert {"Worst cases", "Test images", "Run times"}.isdisjoint(made)
    assert "nothing was held out" in made["Scores"] and "Nothing was held out" in made["Postprocessing"]
    assert "all cases, no validation" in made["At a glance"]
    assert made["Training"].count("<img") == 1


def test_colour_pictures_and_warnings(make: Callable[..., Finished], tmp_path: Path) -> None:
    from PIL import Image

    run = make("2d", shifts={"2d": 2})
    for path in sorted((run.dataset.folder / "imagesTr").iterdir()):
        Image.open(path).convert("RGB").save(path)
    facts = read_json(run.dataset.folder / "dataset.json")
    write_json(run.dataset.folder / "dataset.json", {**facts, "channel_names": {"0": "R", "1": "G", "2": "B"}})
    fingerprint = read_json(run.data / "dataset_fingerprint.json")
    per_channel = fingerprint["foreground_intensity_properties_per_channel"]
    fingerprint["foreground_intensity_properties_per_channel"] = dict.fromkeys("012", per_channel["0"])
    write_json(run.data / "dataset_fingerprint.json", fingerprint)
    problem = {"severity": "warning", "code": "x", "case": "c_1", "file": "f.png", "message": "odd <header>"}
    checks = read_json(run.data / "checks.json")
    write_json(run.data / "checks.json", {**checks, "problems": [{**problem, "remedy": "look at it"}]})
    run = Finished(run.root, run.data, load_dataset(run.dataset.folder), run.benchmarks)
    made = sections_of(report_of(run, tmp_path / "report.html"))
    assert "odd &lt;header&gt;; look at it" in made["Dataset"] and '<td class="warning">' in made["Dataset"]
    assert "2: B" in made["Dataset"]
    assert made["Worst cases"].count("<img") == 6


def test_a_damaged_result_is_named(make: Callable[..., Finished], tmp_path: Path) -> None:
    run = make("2d", shifts={"2d": 1})
    (run.root / "2d" / "fold_0" / "training.jsonl").write_text("{half")
    with pytest.raises(DamagedFileError, match=r"training\.jsonl: not one JSON object a line"):
        report_of(run, tmp_path / "report.html")
    (run.root / "2d" / "fold_0" / "training.jsonl").unlink()  # undeclared, so it may be gone
    (run.root / "2d" / "fold_1" / "training.jsonl").unlink()
    assert sections_of(report_of(run, tmp_path / "report.html"))["Training"].count("<img") == 0
