"""The report's HTML: escaped, self-contained, readable."""

from __future__ import annotations

import base64
import math

import pytest

from segwright.reporting.html import Section, figure, number, page, table
from segwright.reporting.markdown import markdown_to_html


def test_names_from_the_data_cannot_become_markup() -> None:
    made = page("<b>title</b>", "a & b", [Section("One", table(["<i>"], [["<script>alert(1)</script>"]]))])
    assert "<script>" not in made
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made
    assert "&lt;b&gt;title&lt;/b&gt;" in made


def test_the_page_loads_nothing_from_elsewhere() -> None:
    made = page("t", "s", [Section("One", figure(b"\x89PNG", "a picture"))])
    assert base64.b64encode(b"\x89PNG").decode() in made
    assert "http" not in made
    assert 'href="#one"' in made and 'id="one"' in made


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5000"), (math.nan, "–"), (None, "–"), (3, "3")])
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_the_best_row_is_marked() -> None:
    assert "<tr class=best><td>b</td><td class=number>2</td></tr>" in table(["x", "y"], [["a", 1], ["b", 2]], best=1)


def test_markdown_of_the_reasons() -> None:
    made = markdown_to_html(
        "# Title\n\n## 3d\n- **patch** `40x56`: because\n  a < b\n- batch\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    assert "<h3>Title</h3><h3>3d</h3>" in made
    assert "<li><strong>patch</strong> <code>40x56</code>: because a &lt; b</li><li>batch</li>" in made
    assert "<th>a</th><th>b</th>" in made and "<td>1</td><td>2</td>" in made
