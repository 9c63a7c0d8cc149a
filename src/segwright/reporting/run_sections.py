"""The report's end: segmented test images, run times of the jobs, and versions."""

from __future__ import annotations

import platform
from importlib import metadata

from segwright import __version__
from segwright.reporting.html import Section, beside, number, paragraph, table
from segwright.reporting.results import PipelineResults

_PACKAGES = ("numpy", "scipy", "SimpleITK", "matplotlib", "torch", "batchgenerators", "snakemake")


def test_section(results: PipelineResults) -> Section:
    """Where the segmentation of every test image is."""
    if results.final_manifest is None:
        return Section("Test images", "")
    cases = results.final_manifest["cases"]
    rows = [[case_id, f"final/{entry['file']}"] for case_id, entry in sorted(cases.items())]
    note = paragraph(f"{len(rows)} segmented with the selected model; files lie beside this report.", "note")
    made = table(["case", "segmentation"], rows, scroll=len(rows) > 12, numbers_from=None)
    return Section("Test images", note + made)


def times_section(results: PipelineResults) -> Section:
    """Run time and peak memory of the jobs by rule."""
    if not results.job_times:
        return Section("Run times", "")
    rows = [
        [time.rule.replace("_", " "), time.jobs, number(time.runtime_min, 2), number(time.peak_memory_mb, 0)]
        for time in results.job_times
    ]
    total = sum(time.runtime_min for time in results.job_times)
    rows.append(["all", sum(time.jobs for time in results.job_times), number(total, 2), ""])
    note = paragraph(
        "Of the last run of every job of this pipeline; a job that was interrupted counts from its last start. Jobs"
        " that several pipelines share count in each of their reports.",
        "note",
    )
    head = ["stage", "jobs", "minutes in all", "most memory of a job (MB)"]
    return Section("Run times", note + table(head, rows))


def versions_section(results: PipelineResults) -> Section:
    """What trained the models, and what made this page."""
    trained = {
        (str(name), str(version))
        for history in results.histories
        for name, version in history.training.get("versions", {}).items()
    }
    plugins = {item for history in results.histories for item in history.training.get("plugins", {}).items()}
    rows = [[f"{name} (stage version)" if name == "training" else name, version] for name, version in sorted(trained)]
    rows += [[f"plugin {name}", digest[:12]] for name, digest in sorted(plugins)]
    tables = [table(["models trained with", "version"], rows, numbers_from=None)] if rows else []
    here = [["segwright", __version__], ["Python", platform.python_version()], ["machine", platform.platform()]]
    for package in _PACKAGES:
        try:
            here.append([package, metadata.version(package)])
        except metadata.PackageNotFoundError:
            continue  # a rule's environment holds only what the rule needs
    tables.append(table(["report made with", "version"], here, numbers_from=None))
    return Section("Versions", beside(tables))
