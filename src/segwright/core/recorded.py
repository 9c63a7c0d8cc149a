"""Whether a file still is what another file recorded: the one check, and the one message, for all stages."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segwright.core.errors import DamagedFileError
from segwright.core.files import file_digest


@dataclass(frozen=True)
class RecordedFile:
    """A file, and what its content was when it was recorded.

    Attributes:
        digest: SHA-256 of its content.
        source: the file that recorded it.
        remedy: what to do if it is missing or another now; None: delete ``source`` and run again.
        case_id: the case it belongs to; None where it belongs to none, or where nobody would look for one.
    """

    path: Path
    digest: str
    source: Path
    remedy: str | None = None
    case_id: str | None = None

    def problem(self) -> str | None:
        """What is wrong with the file, in words; None: it is there, and its content is what was recorded."""
        try:
            found = file_digest(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return f"{self.source} names this file, but it is missing"
        except OSError as error:
            return f"cannot be read ({error.strerror})"
        return None if found == self.digest else f"its content is not what {self.source} recorded"

    def verify(self) -> Path:
        """The path, if the file still is what was recorded; its whole content is read.

        Raises:
            DamagedFileError: it is missing, cannot be read, or was altered.
        """
        problem = self.problem()
        if problem is not None:
            raise self.damaged(problem)
        return self.path

    def damaged(self, problem: str) -> DamagedFileError:
        """The error to raise for the file, also for what only its reader can find wrong."""
        case = "" if self.case_id is None else f"case {self.case_id}: "
        return DamagedFileError(self.path, case + problem, self.remedy or f"delete {self.source} and run again")
