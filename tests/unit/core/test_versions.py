"""Changed code of a stage is looked at: if results change, its version goes up; the record is renewed either way.

python -m tests.unit.core.test_versions        renews the record after you decided
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from segwright.core.files import bytes_digest
from segwright.core.versions import STAGE_MODULES, STAGE_VERSION

PACKAGE = Path(__file__).resolve().parents[3] / "src" / "segwright"
RECORD = Path(__file__).with_name("stage_digests.json")


def code_of(path: Path) -> str:
    """A module's code without comments, docstrings and formatting: what can change a result."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body[0].value.value = ""
    return ast.dump(tree)


def stage_digest(stage: str) -> str:
    files: list[Path] = []
    for module in STAGE_MODULES[stage]:
        path = PACKAGE / module
        files.extend(sorted(path.rglob("*.py")) if path.is_dir() else [path])
    text = "\n".join(f"{path.relative_to(PACKAGE)} {code_of(path)}" for path in files)
    return bytes_digest(text.encode())


def current_record() -> dict[str, dict[str, object]]:
    return {stage: {"version": STAGE_VERSION[stage], "digest": stage_digest(stage)} for stage in STAGE_VERSION}


def test_every_stage_says_what_it_depends_on() -> None:
    assert STAGE_MODULES.keys() == STAGE_VERSION.keys()
    assert all((PACKAGE / module).exists() for modules in STAGE_MODULES.values() for module in modules)


@pytest.mark.parametrize("stage", STAGE_VERSION)
def test_changed_code_comes_with_a_decision(stage: str) -> None:
    recorded = json.loads(RECORD.read_text())[stage]
    assert {"version": STAGE_VERSION[stage], "digest": stage_digest(stage)} == recorded, (
        f"the code of stage `{stage}` changed: if results change, raise its number in core/versions.py (everything"
        f" below runs again); in both cases renew the record: python -m tests.unit.core.test_versions"
    )


def test_comments_and_docstrings_do_not_count(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("a.py", "b.py", "c.py"))
    first.write_text('"""One."""\n\ndef f(x):\n    """Says."""\n    return x + 1  # why\n')
    second.write_text('"""Other."""\ndef f(x):\n    """Tells."""\n    return (x + 1)\n')
    third.write_text('"""Other."""\ndef f(x):\n    """Tells."""\n    return (x + 2)\n')
    assert code_of(first) == code_of(second) != code_of(third)


if __name__ == "__main__":
    RECORD.write_text(json.dumps(current_record(), indent=2) + "\n")
