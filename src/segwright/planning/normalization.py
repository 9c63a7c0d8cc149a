"""Which normalization each channel gets, from its name alone (method 3.9)."""

from __future__ import annotations

from collections.abc import Sequence

SCHEMES = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
MASK_BELOW = 0.75
"""Z-scores are taken inside the non-zero mask when cropping leaves less than this share of a median image."""


def choose_normalization(
    channel_names: Sequence[str], median_relative_size: float
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Scheme and use of the non-zero mask per channel.

    Args:
        channel_names: in channel order, any case; an unknown name means z-score.
        median_relative_size: size after cropping to non-zero over size before, median over the cases.
    """
    schemes = tuple(SCHEMES.get(name.casefold(), "ZScoreNormalization") for name in channel_names)
    masked = median_relative_size < MASK_BELOW
    return schemes, tuple(masked and scheme == "ZScoreNormalization" for scheme in schemes)
