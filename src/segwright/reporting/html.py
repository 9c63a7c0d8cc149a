"""The little HTML the report needs: escaped text, tables, embedded pictures and sections in one page without links."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light; --ink: #1c2430; --soft: #5b6675; --line: #dde2e8; --accent: #1f6f8b; --tint: #eef5f7;
  --warn: #8a5200; --bad: #a3262a; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 3.5rem; }
body { margin: 0; color: var(--ink); background: #fff; font: 15px/1.55 system-ui, "Segoe UI", Roboto, sans-serif; }
header, main, nav div { max-width: 1160px; margin: 0 auto; padding: 0 1.5rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .7rem; padding-bottom: .25rem; border-bottom: 2px solid var(--accent); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .4rem; }
p, li, dd { max-width: 95ch; } p { margin: .3rem 0 .8rem; }
nav { position: sticky; top: 0; z-index: 3; background: #fff; border-bottom: 1px solid var(--line); }
nav div { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding-top: .6rem; padding-bottom: .6rem; }
nav a { color: var(--accent); text-decoration: none; } nav a:hover { text-decoration: underline; }
.note, figcaption, .facts dt { color: var(--soft); } .warning { color: var(--warn); }
.error { color: var(--bad); font-weight: 600; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .8rem; margin: 1rem 0; }
.facts div { background: var(--tint); border-radius: 6px; padding: .6rem .9rem; }
.facts dt { font-size: .85rem; }
.facts dd { margin: 0; font-size: 1.25rem; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow: auto; margin: .4rem 0 1rem; } .scroll.tall { max-height: 30rem; border: 1px solid var(--line); }
table { border-collapse: separate; border-spacing: 0; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { font-weight: 600; background: #fff; } thead th { border-bottom: 1.5px solid #b9c2cc; white-space: nowrap; }
.tall thead th { position: sticky; top: 0; z-index: 1; }
td.number, th.number { text-align: right; white-space: nowrap; } tr.best td { background: #dceef3; font-weight: 600; }
td.text { min-width: 16rem; }
td.dice0 { background: #f7c9c6; } td.dice1 { background: #fbe0d3; } td.dice2 { background: #fdf2da; }
td.dice3 { background: #eff5e1; } td.dice4 { background: #e0f0e0; }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; }
summary { cursor: pointer; padding: .45rem .9rem; font-weight: 600; }
details > div { padding: 0 .9rem .5rem; }
dl.reasons { display: grid; grid-template-columns: minmax(9rem, max-content) 1fr; gap: .3rem 1.2rem; margin: .3rem 0; }
dl.reasons dt { font-weight: 600; } dl.reasons dd { margin: 0; }
figure { margin: .6rem 0 1.4rem; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; margin-top: .3rem; max-width: 100ch; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem; }
.row figure { margin: 0 0 .6rem; } .tables { display: flex; flex-wrap: wrap; gap: 0 2.5rem; align-items: flex-start; }
.tables .scroll { max-width: 100%; }
code { font-family: ui-monospace, monospace; font-size: .9em; background: #f2f4f6; padding: 0 .25em; }
footer { color: var(--soft); margin-top: 3rem; padding: 1rem 0 3rem; border-top: 1px solid var(--line); }
@media print { nav { display: none; } .scroll.tall { max-height: none; } h2, h3 { break-after: avoid; }
  figure, tr { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """One part of the page: a title for the navigation and its body as HTML."""

    title: str
    body: str

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Cell:
    """A table cell with a CSS class of its own, for example a shade."""

    value: object
    kind: str


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole page; nothing is loaded from elsewhere."""
    links = "".join(f'<a href="#{section.anchor}">{text(section.title)}</a>' for section in sections)
    bodies = "\n".join(
        f'<section id="{section.anchor}"><h2>{text(section.title)}</h2>{section.body}</section>' for section in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>'
        f'<header><h1>{text(title)}</h1><p class="note">{text(subtitle)}</p></header><nav><div>{links}</div></nav>\n'
        f"<main>{bodies}<footer>Made by segwright. Research use only; not a medical device.</footer></main>"
        "</body></html>\n"
    )


def text(value: object) -> str:
    """Escaped for HTML, also inside attributes."""
    return html.escape(str(value))


def heading(value: object) -> str:
    return f"<h3>{text(value)}</h3>"


def paragraph(value: object, kind: str = "") -> str:
    return f'<p class="{kind}">{text(value)}</p>' if kind else f"<p>{text(value)}</p>"


def number(value: float | int | None, digits: int = 4) -> str:
    """A number for a table cell; a structure that never occurs (NaN) is a dash."""
    if value is None or value != value:
        return "–"
    return f"{value:d}" if isinstance(value, int) else f"{value:.{digits}f}"


def dice_cell(value: float, digits: int = 3) -> Cell:
    """A Dice value on a shade from red to green, in five steps."""
    shade = "" if value != value else f" dice{min(int(value * 5), 4)}"
    return Cell(number(value, digits), f"number{shade}")


def facts(entries: Iterable[tuple[str, object]]) -> str:
    """A row of tiles with one number or name each."""
    tiles = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in entries)
    return f'<dl class="facts">{tiles}</dl>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    best: int | None = None,
    scroll: bool = False,
    numbers_from: int | None = 1,
) -> str:
    """A table that scrolls sideways if it must; row ``best`` is highlighted.

    Args:
        scroll: limit the height too, for long tables.
        numbers_from: columns from here on are aligned right; None: no column.
    """
    is_number = [numbers_from is not None and column >= numbers_from for column in range(len(head))]

    def cell(value: object, tag: str, right: bool) -> str:
        kind = value.kind if isinstance(value, Cell) else "number" if right else ""
        shown = value.value if isinstance(value, Cell) else value
        return f'<{tag} class="{kind}">{text(shown)}</{tag}>' if kind else f"<{tag}>{text(shown)}</{tag}>"

    def cells(values: Sequence[object], tag: str) -> str:
        return "".join(cell(value, tag, right) for value, right in zip(values, is_number, strict=True))

    body = "\n".join(
        f"<tr{' class=best' if index == best else ''}>{cells(row, 'td')}</tr>" for index, row in enumerate(rows)
    )
    made = f"<table><thead><tr>{cells(head, 'th')}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll{" tall" if scroll else ""}">{made}</div>'


def details(summary: str, body: str, *, opened: bool = False) -> str:
    """A part that opens and closes on a click."""
    return f"<details{' open' if opened else ''}><summary>{text(summary)}</summary><div>{body}</div></details>"


def figure(png: bytes, caption: str) -> str:
    """An embedded picture with its caption, which is also its alternative text."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(caption)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def row(figures: Iterable[str]) -> str:
    """Pictures beside each other, as many as fit."""
    return f'<div class="row">{"".join(figures)}</div>'


def beside(tables: Iterable[str]) -> str:
    """Tables beside each other, as many as fit."""
    return f'<div class="tables">{"".join(tables)}</div>'
