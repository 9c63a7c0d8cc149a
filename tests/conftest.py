"""Fixtures and options shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_IMAGES = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        type=Path,
        default=REAL_IMAGES,
        metavar="DIR",
        help="folder of real images (default: ../shared/data beside the checkout)",
    )


@pytest.fixture(scope="session")
def shared_data(pytestconfig: pytest.Config) -> Path:
    """Folder of real images (``--data``); tests that need it skip where it is absent."""
    folder = Path(pytestconfig.getoption("--data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}; name their folder with --data DIR")
    return folder
