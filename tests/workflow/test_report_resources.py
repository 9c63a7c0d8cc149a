"""What the report's job asks for grows with the images that it shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.workflow.runner import ROOT, Project

ASK = """
include: {snakefile!r}


from types import SimpleNamespace

for name in ("mem_mb", "runtime"):
    asked = rules.report.rule.resources[name].evaluate(SimpleNamespace(dataset="Dataset900_Phantom"))
    print("asked", name, asked.value)
"""


@pytest.mark.parametrize(
    ("shape_zyx", "channels", "mem_mb", "runtime"),
    [
        ((64, 256, 256), 1, 3000, 60),
        ((1, 20_000, 20_000), 3, 400 + 1500 + 3 * 4800, 60 + 16 * 3),  # 4800 MB, three outputs
    ],
)
def test_memory_and_time_of_the_report(
    phantom_project: Callable[..., Project],
    shape_zyx: tuple[int, int, int],
    channels: int,
    mem_mb: int,
    runtime: int,
) -> None:
    project = phantom_project("plain")
    record = {"channels": channels, "geometry": {"shape_zyx": shape_zyx}}
    inspection = project.folder / "results/Dataset900_Phantom/data/inspection/batch_0.json"
    inspection.parent.mkdir(parents=True)
    inspection.write_text(json.dumps({"cases": {"a": record}}))
    snakefile = project.folder / "Snakefile"
    snakefile.write_text(ASK.format(snakefile=str(ROOT / "Snakefile")))
    run = project.must_run(options=("--list-rules", "--snakefile", str(snakefile)))
    asked = {name: int(value) for name, value in re.findall(r"asked (\w+) (\d+)", run.output)}
    assert asked == {"mem_mb": mem_mb, "runtime": runtime}
