"""The Markdown that ``plan/reasons.md`` uses, as HTML: headings, lists, tables, paragraphs, ``code`` and **bold**."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator


def markdown_to_html(markdown: str) -> str:
    """Turn headings (one level lower than written, at most h3), bullet lists, pipe tables and paragraphs into HTML."""
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
        yield "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in _items(lines)) + "</ul>"
    else:
        yield f"<p>{_inline(' '.join(line.strip() for line in lines))}</p>"


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
