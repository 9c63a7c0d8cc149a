"""Case ids become file names on other machines too; these rules tell which ones can."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from segwright.inspection.records import AddProblem

_MAX_BYTES = 180  # results append up to 40 characters, and file systems allow 255
WILDCARD = re.compile(r"[{}]|<[a-z][a-z0-9_]*>")
"""Snakemake's wildcards and path variables, which have no other spelling: such files cannot be named to it."""
_NOT_PORTABLE = ':*?"<>|'
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def find_name_problems(case_id: str, add: AddProblem) -> None:
    """Report an id that is no file name (error), or none on every system (warning)."""
    reason = unusable_reason(case_id)
    if reason:
        add("error", "name_unsafe", None, f"the case name {case_id!r} {reason}", "rename the case's files")
        return
    reason = _not_portable_reason(case_id)
    if reason:
        add("warning", "name_not_portable", None, f"the case name {reason}", "rename it if results are to be shared")


def unusable_reason(case_id: str) -> str:
    """Why results cannot be named after this case; empty if they can."""
    if not case_id or case_id.startswith((".", "-")):
        return "is empty, or starts with a dot or a hyphen"
    if "/" in case_id or "\\" in case_id:
        return "holds a slash or backslash"
    if WILDCARD.search(case_id):
        return "holds a brace or a word in angle brackets, which the workflow takes for a wildcard"
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in case_id):
        return "holds a control character"
    if len(case_id.encode("utf-8", errors="replace")) > _MAX_BYTES:
        return f"is longer than {_MAX_BYTES} bytes"
    return ""


def clashing_names(case_ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of different ids that are one file name where case or Unicode form does not count."""
    groups: dict[str, list[str]] = {}
    for case_id in case_ids:
        groups.setdefault(unicodedata.normalize("NFC", case_id).casefold(), []).append(case_id)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]


def _not_portable_reason(case_id: str) -> str:
    strange = sorted(set(case_id) & set(_NOT_PORTABLE))
    if strange:
        return f"holds {' '.join(strange)}, which other systems do not allow in file names"
    if case_id != case_id.strip() or case_id.endswith("."):
        return "starts or ends with a blank, or ends with a dot"
    if case_id.split(".")[0].casefold() in _DEVICES:
        return "is reserved on Windows"
    return ""
