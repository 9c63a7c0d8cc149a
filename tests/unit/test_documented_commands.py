"""Every command that a page shows is one the programs understand as it stands there, and every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from segwright.cli_arguments import make_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "config/README.md", "docs/tutorial.md", *sorted(map(str, ROOT.glob("docs/how-to/*.md"))))
_BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMAND = re.compile(r"^(?:.*&& )?(?:\.venv/bin/)?(snakemake|segwright) (-.*|\w.*)$")
_INLINE = re.compile(r"`(?:\.venv/bin/)?snakemake ([^`\n]+)`")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
TARGETS = set(re.findall(r"^rule (\w+_all):", (ROOT / "Snakefile").read_text(), re.MULTILINE))


def commands(program: str) -> list[str]:
    """The arguments of every such command in a block of a page; continued lines joined."""
    blocks = [block for page in PAGES for block in _BLOCK.findall((ROOT / page).read_text())]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [match[2] for line in lines if (match := _COMMAND.match(line)) and match[1] == program]
    assert found, program
    return found


@pytest.mark.parametrize("arguments", commands("snakemake"))
def test_snakemake(arguments: str) -> None:
    from snakemake.cli import get_argument_parser

    options = get_argument_parser().parse_args(shlex.split(arguments, comments=True))
    assert all(str(path).endswith(".yaml") for path in options.configfile or ()), options.configfile
    assert set(options.targets) <= TARGETS


@pytest.mark.parametrize("arguments", commands("segwright"))
def test_segwright(arguments: str) -> None:
    words = shlex.split(arguments, comments=True)
    assert make_parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("page", PAGES)
def test_targets_within_the_text_stand_before_the_options(page: str) -> None:
    """After `--configfile my.yaml` a target would be taken for a second file."""
    for arguments in _INLINE.findall((ROOT / page).read_text()):
        assert not TARGETS & set(arguments.split()[1:]), arguments


def test_links_lead_to_files() -> None:
    folders = [ROOT / name for name in ("config", "docs", "benchmarks")]
    pages = [*ROOT.glob("*.md"), *(page for folder in folders for page in folder.rglob("*.md"))]
    links = [(page, link) for page in pages for link in _LINK.findall(page.read_text())]
    assert len(links) > 20
    assert [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_examples_of_the_help() -> None:
    parser = make_parser()
    choices = next(action.choices for action in parser._actions if action.dest == "command")
    assert choices
    for name, command in choices.items():  # type: ignore[union-attr]
        example = command.epilog.splitlines()[-1].split()
        assert example[:2] == ["segwright", name]
        parser.parse_args(example[1:])
