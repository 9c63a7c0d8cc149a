"""Numbers as people write them, for reasons and error messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def sizes(values: Iterable[float]) -> str:
    """``40x56x40``"""
    return "x".join(f"{value:g}" for value in values)


def millimetres(values: Iterable[float]) -> str:
    """``3.6 x 0.62 x 0.62 mm``"""
    return " x ".join(f"{value:.4g}" for value in values) + " mm"


def millions(value: float) -> str:
    """``19.2``; whole numbers without a decimal, small numbers with three digits."""
    return f"{value / 1e6:.1f}".removesuffix(".0") if value >= 1e6 else f"{value / 1e6:.3g}"


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def count(number: int, noun: str) -> str:
    """``1 step``, ``2 steps``"""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listing(values: Sequence[object]) -> str:
    """``1, 2 and 3``"""
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
