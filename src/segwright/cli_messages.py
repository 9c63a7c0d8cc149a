"""Messages of the ``segwright`` command: the library's log on the terminal, one line each."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class TerminalHandler(logging.Handler):
    """Writes to whatever stderr is at that moment, so that messages and progress bars do not tear each other."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname.lower()}: " if record.levelno > logging.INFO else ""
        sys.stderr.write(f"{prefix}{self.format(record)}\n")


@contextmanager
def messages_to_terminal() -> Iterator[None]:
    """Show the library's messages while a command runs; afterwards logging is as it was."""
    library = logging.getLogger("segwright")
    handler, level, propagate = TerminalHandler(), library.level, library.propagate
    library.addHandler(handler)
    library.setLevel(logging.INFO)
    library.propagate = False
    try:
        yield
    finally:
        library.removeHandler(handler)
        library.setLevel(level)
        library.propagate = propagate


def os_error_text(error: OSError) -> str:
    """What the operating system refused, and what to do."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{(error.strerror or str(error)).lower()}; correct the path, its rights, or the space on the disk"
