"""Start-up: everything but prediction itself must not import torch (design 3: 1.6 CPU seconds a job against 0.4)."""

from __future__ import annotations

import subprocess
import sys


def test_evaluation_selection_and_sharing_do_not_import_torch() -> None:
    modules = (
        "evaluation.summary", "selection.best", "selection.ensembles", "selection.finish", "selection.folders",
        "selection.postprocessing", "sharing.package", "sharing.use",
    )  # fmt: skip
    program = "import sys; " + "; ".join(f"import segwright.{name}" for name in modules)
    program += "; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
