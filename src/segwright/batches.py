"""Batches of raw cases: which there are, and the files that the workflow inspects for each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from segwright.core.dataset import Case, cases_by_batch, image_sidecar, label_sidecar
from segwright.core.errors import named
from segwright.core.files import json_digest


@dataclass(frozen=True)
class Batches:
    """The training cases or the test cases of a dataset, cut into batches.

    Attributes:
        cases: of each batch, by its name; no batch is empty.
    """

    cases: Mapping[str, tuple[Case, ...]]

    @staticmethod
    def of(cases: Iterable[Case], number: int) -> Batches:
        """Cut cases into at most this many batches."""
        by_id = {case.case_id: case for case in cases}
        members = cases_by_batch(by_id, number)
        return Batches({batch: tuple(by_id[case_id] for case_id in case_ids) for batch, case_ids in members.items()})

    @property
    def names(self) -> list[str]:
        return list(self.cases)

    def case_ids(self, batch: str) -> list[str]:
        return [case.case_id for case in named(self.cases, batch, "batch")]

    def files(self, batch: str) -> list[str]:
        """Raw images and labels of a batch."""
        return [path for files in self.files_by_case(batch) for path in files]

    def files_by_case(self, batch: str) -> list[list[str]]:
        """Raw images and label of every case of a batch.

        Raises:
            SettingsError: there is no such batch.
        """
        return [_files(case) for case in named(self.cases, batch, "batch")]

    def written(self, batch: str) -> str:
        """Digest of name, size and time (s) of each file of a batch, and of what tells the spacing of a TIFF file.

        It changes when a file is replaced, be it by an older one. Snakemake only asks whether a file is newer than the
        results: `mv`, `rsync -a` and `tar` put files in place that are older, and a TIFF's spacing is no input, for it
        need not be there.
        """
        written = []
        for case in self.cases[batch]:
            labels = [] if case.label_file is None else [case.label_file]
            files = [*case.image_files, *labels]
            if any(path.name.lower().endswith((".tif", ".tiff")) for path in files):
                files += [*map(image_sidecar, case.image_files), *map(label_sidecar, labels)]
            for path in files:
                with contextlib.suppress(OSError):  # missing files are told by the inspection
                    facts = path.stat()
                    written.append((path.name, facts.st_size, int(facts.st_mtime)))
        return json_digest(written)


def _files(case: Case) -> list[str]:
    """The files of a case, without those that are not there: inspection tells of them, all problems at once."""
    named = [path for path in (*case.image_files, case.label_file) if path is not None]
    return [str(path) for path in named if os.path.isfile(path)]  # noqa: PTH113 - no error where it may not look
