"""The little HTML the report needs: escaped text, tables, embedded pictures and sections in one page without links."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #d9dee5; --accent: #1f6f8b; --warn: #9a5b00; --bad: #a3262a; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.5 system-ui, sans-serif; }
header, main { max-width: 1100px; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2rem; border-bottom: 3px solid var(--accent); }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; } h3 { font-size: 1rem; margin: 1.2rem 0 .4rem; }
nav { padding: .6rem 0 1rem; } nav a { margin-right: 1.1rem; color: var(--accent); text-decoration: none; }
p.note { color: var(--soft); } .warning { color: var(--warn); } .error { color: var(--bad); font-weight: 600; }
table { border-collapse: collapse; margin: .4rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; } tr.best td { background: #e8f3f6; font-weight: 600; }
.scroll { max-height: 28rem; overflow: auto; border: 1px solid var(--line); margin-bottom: 1rem; }
figure { margin: .6rem 0 1.2rem; } figure img { max-width: 100%; height: auto; } figcaption { color: var(--soft); font-size: .9rem; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } .row figure { flex: 1 1 300px; max-width: 100%; }
footer { color: var(--soft); padding: 2rem 0 3rem; }
"""  # noqa: E501


@dataclass(frozen=True)
class Section:
    """One part of the page: a title for the navigation and its body as HTML."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-")


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page; nothing is loaded from elsewhere."""
    links = "".join(f'<a href="#{section.anchor}">{text(section.title)}</a>' for section in sections)
    bodies = "".join(
        f'<section id="{section.anchor}"><h2>{text(section.title)}</h2>{section.body}</section>' for section in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<header><h1>{text(title)}</h1><p class="note">{text(subtitle)}</p><nav>{links}</nav></header>'
        f"<main>{bodies}<footer>Made by segwright. Research use only; not a medical device.</footer></main>"
        "</body></html>\n"
    )


def text(value: object) -> str:
    return html.escape(str(value))


def paragraph(value: object, kind: str = "") -> str:
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def number(value: float | int | None, digits: int = 4) -> str:
    """A number for a table cell; a structure that never occurs (NaN) is a dash."""
    if value is None or value != value:
        return "–"
    return f"{value:d}" if isinstance(value, int) else f"{value:.{digits}f}"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    best: int | None = None,
    scroll: bool = False,
    numbers_from: int = 1,
) -> str:
    """A table; columns from ``numbers_from`` on are aligned right, row ``best`` is highlighted."""

    def cells(values: Sequence[object], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if column >= numbers_from else ''}>{text(value)}</{tag}>"
            for column, value in enumerate(values)
        )

    body = "".join(
        f"<tr{' class=best' if index == best else ''}>{cells(row, 'td')}</tr>" for index, row in enumerate(rows)
    )
    made = f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{made}</div>' if scroll else made


def figure(png: bytes, caption: str) -> str:
    """An embedded picture with its caption, which is also its alternative text."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(caption)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def row(figures: Iterable[str]) -> str:
    return f'<div class="row">{"".join(figures)}</div>'
