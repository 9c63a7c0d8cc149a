from __future__ import annotations

import pytest

from segwright.planning.normalization import choose_normalization


def test_schemes_by_name() -> None:
    """Method 3.9; names are case-folded."""
    names = ["CT", "ct", "noNorm", "zscore", "Rescale_to_0_1", "rgb_to_0_1", "T1", "CTA"]
    schemes, masks = choose_normalization(names, 1.0)
    assert schemes == (
        "CTNormalization", "CTNormalization", "NoNormalization", "ZScoreNormalization", "RescaleTo01Normalization",
        "RGBTo01Normalization", "ZScoreNormalization", "ZScoreNormalization",
    )  # fmt: skip
    assert not any(masks)


@pytest.mark.parametrize(("share", "masked"), [(0.75, False), (0.7499, True)])
def test_mask_only_below_three_quarters_and_only_for_z_scores(share: float, masked: bool) -> None:
    assert choose_normalization(["T1", "CT", "noNorm"], share)[1] == (masked, False, False)
