"""The report's HTML: escaped, self-contained, readable."""

from __future__ import annotations

import base64
import math

import pytest

from segwright.reporting.html import Cell, Section, details, dice_cell, facts, figure, number, page, table


def test_names_from_the_data_cannot_become_markup() -> None:
    body = table(["<i>"], [["<script>alert(1)</script>"]]) + facts([("<u>", "<b>")]) + details("<p>", "")
    made = page("<b>title</b>", "a & b", [Section("One", body)])
    for tag in ("<script>", "<i>", "<u>", "<b>", "<p>"):
        assert tag not in made
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in made and "&lt;b&gt;title&lt;/b&gt;" in made


def test_captions_cannot_leave_their_attribute() -> None:
    assert 'alt="&quot; onload=&quot;x"' in figure(b"", '" onload="x')


def test_the_page_loads_nothing_from_elsewhere() -> None:
    made = page("t", "s", [Section("One & two", figure(b"\x89PNG", "a picture"))])
    assert base64.b64encode(b"\x89PNG").decode() in made
    assert "http" not in made
    assert 'href="#one-two"' in made and 'id="one-two"' in made


@pytest.mark.parametrize(("value", "shown"), [(0.5, "0.5000"), (math.nan, "–"), (None, "–"), (3, "3")])
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("value", "kind"), [(0.0, "number dice0"), (0.2, "number dice1"), (0.999, "number dice4"), (1.0, "number dice4")]
)
def test_dice_is_shaded_in_five_steps(value: float, kind: str) -> None:
    assert dice_cell(value).kind == kind


def test_a_dice_that_does_not_exist_has_no_shade() -> None:
    assert dice_cell(math.nan) == Cell("–", "number")


def test_rows_and_columns_are_marked() -> None:
    made = table(["x", "y"], [["a", 1], ["b", 2]], best=1)
    assert '<tr class=best><td>b</td><td class="number">2</td></tr>' in made
    assert '<th class="number">y</th>' in made
    assert "number" not in table(["x", "y"], [["a", 1]], numbers_from=None)
    assert table(["x"], [], scroll=True).startswith('<div class="scroll tall">')


def test_a_row_of_another_length_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(["x", "y"], [["a"]])
