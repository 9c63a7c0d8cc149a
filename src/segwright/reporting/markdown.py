"""The Markdown that ``plan/reasons.md`` uses, as HTML: headings, lists, tables, paragraphs, ``code`` and **bold**."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

_TERM = re.compile(r"\*\*(?P<term>[^*]+)\*\*:?\s+(?P<rest>.+)", re.DOTALL)


def markdown_sections(markdown: str) -> list[tuple[str, str]]:
    """Cut at the second-level headings: (heading, Markdown below it); what stands before the first has heading ""."""
    parts = re.split(r"^##\s+(.+?)\s*$", markdown, flags=re.MULTILINE)
    opening = re.sub(r"^#\s.*$", "", parts[0], flags=re.MULTILINE).strip()
    sections = [("", opening)] if opening else []
    return sections + [(parts[i], parts[i + 1].strip()) for i in range(1, len(parts), 2)]


def markdown_to_html(markdown: str) -> str:
    """Turn headings (all to h3), bullet lists, pipe tables and paragraphs into HTML.

    A list whose items all begin with a **bold** term becomes a definition list.
    """
    blocks = re.split(r"\n\s*\n", markdown.strip())
    return "".join(part for block in blocks if block.strip() for part in _block(block.strip("\n")))


def _block(block: str) -> Iterator[str]:
    lines = block.splitlines()
    while lines and lines[0].startswith("#"):
        yield f"<h3>{_inline(lines.pop(0).lstrip('#').strip())}</h3>"
    if not lines:
        return
    if all(line.lstrip().startswith("|") for line in lines):
        yield _table(lines)
    elif lines[0].lstrip().startswith(("- ", "* ")):
        yield _list(list(_items(lines)))
    else:
        yield f"<p>{_inline(' '.join(line.strip() for line in lines))}</p>"


def _list(items: list[str]) -> str:
    terms = [_TERM.fullmatch(item) for item in items]
    if all(terms):
        return (
            '<dl class="reasons">'
            + "".join(
                f"<dt>{_inline(match['term'].rstrip(':'))}</dt><dd>{_inline(_capital(match['rest']))}</dd>"
                for match in terms
                if match
            )
            + "</dl>"
        )
    return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"


def _capital(sentence: str) -> str:
    """A sentence of its own begins with a capital, unless its first word is a name such as 3d_fullres."""
    first = sentence.split(" ", 1)[0].rstrip(":,")
    return sentence[:1].upper() + sentence[1:] if first.isalpha() and first.islower() else sentence


def _items(lines: list[str]) -> Iterator[str]:
    """Bullet items; a line without bullet continues the item before it."""
    item = ""
    for line in lines:
        stripped = line.strip()
        if stripped.startswith(("- ", "* ")):
            if item:
                yield item
            item = stripped[2:]
        else:
            item += f" {stripped}"
    yield item


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    rows = [row for row in rows if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
    head = "".join(f"<th>{_inline(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _inline(text: str) -> str:
    escaped = html.escape(text)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", escaped)
