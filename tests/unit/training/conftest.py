"""What whole trainings in tests have in common; asked for with ``pytest.mark.usefixtures``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure has its own test; elsewhere it would take most of the time."""
    monkeypatch.setattr("segwright.training.history.draw_progress", lambda path, records: path.write_bytes(b"figure"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny tensors are not worth more; the number is put back afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
