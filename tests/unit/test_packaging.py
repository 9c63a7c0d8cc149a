"""What an installation brings is what the program imports, wherever it is listed; a version number stands once."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from segwright import __version__

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = {need.name: need.specifier for need in map(Requirement, PROJECT["dependencies"])}
MODULES = {"pyyaml": "yaml", "zlib-ng": "zlib_ng"}
"""Packages that are imported by another name."""
CONDA_NAMES = {"pytorch": "torch", "python-zlib-ng": "zlib-ng", "simpleitk": "SimpleITK"}
OPTIONAL = {"triton"}
"""Used where torch has brought it."""
REFERENCES = {"batchgenerators"}
"""Installed with the program for comparing with it; imported by the tests alone."""


def imported_packages() -> set[str]:
    packages = set()
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow" / "scripts").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            packages |= {name.split(".")[0] for name in names}
    return packages - sys.stdlib_module_names - {"segwright", "_job"}


def environment(name: str) -> dict[str, str]:
    """Package of a rule's conda environment, by its name on PyPI -> what is asked of its version."""
    listed = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())["dependencies"]
    pairs = (entry.partition(" ") for entry in listed)
    return {CONDA_NAMES.get(package, package): version for package, _, version in pairs}


def test_what_is_imported_is_what_is_depended_on() -> None:
    assert {MODULES.get(name, name) for name in DEPENDENCIES} == (imported_packages() - OPTIONAL) | REFERENCES


@pytest.mark.parametrize(
    ("name", "lacks"), [("core", {"torch", "matplotlib"}), ("report", {"torch"}), ("torch", set())]
)
def test_conda_environments_list_the_same(name: str, lacks: set[str]) -> None:
    wanted = {**DEPENDENCIES, "python": SpecifierSet(PROJECT["requires-python"])}
    found = environment(name)
    assert found.keys() == wanted.keys() - lacks
    for package, version in found.items():
        assert not version or wanted[package].contains(version.removeprefix("=")), package


def test_pinned_versions_are_allowed_ones() -> None:
    lines = (ROOT / "constraints.txt").read_text().split()
    pinned = {name.lower().replace("_", "-"): version for name, version in (line.split("==") for line in lines)}
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for need in (Requirement(text) for group in groups for text in group):
        assert need.specifier.contains(pinned[need.name.lower().replace("_", "-")]), need.name


def test_every_file_says_the_same_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert PROJECT["version"] == __version__ == cited
