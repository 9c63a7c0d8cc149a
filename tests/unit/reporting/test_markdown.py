"""Markdown of the reasons: sections, definition lists, tables."""

from __future__ import annotations

import pytest

from segwright.reporting.markdown import markdown_sections, markdown_to_html


def test_a_list_of_bold_terms_becomes_a_definition_list() -> None:
    made = markdown_to_html("- **patch:** `40x56`: because\n  a < b\n- **stages** many\n")
    assert made == (
        '<dl class="reasons"><dt>patch</dt><dd><code>40x56</code>: because a &lt; b</dd>'
        "<dt>stages</dt><dd>Many</dd></dl>"
    )


def test_other_lists_headings_tables_and_paragraphs() -> None:
    made = markdown_to_html("# Title\n\n## 3d\n- **patch** x\n- batch\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\none\ntwo\n")
    assert made == (
        "<h3>Title</h3><h3>3d</h3><ul><li><strong>patch</strong> x</li><li>batch</li></ul>"
        "<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
        "<p>one two</p>"
    )


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [("yes: all", "Yes: all"), ("plain_unet with", "plain_unet with"), ("3d_lowres", "3d_lowres")],
)
def test_only_plain_words_get_a_capital(sentence: str, shown: str) -> None:
    assert f"<dd>{shown}</dd>" in markdown_to_html(f"- **a** {sentence}")


def test_sections_are_cut_at_second_level_headings() -> None:
    assert markdown_sections("# T\n\nopening\n\n## a b\n\n- x\n\n## c\n") == [
        ("", "opening"), ("a b", "- x"), ("c", ""),
    ]  # fmt: skip
    assert markdown_sections("") == []
