"""The dataset fingerprint in nnU-Net v2's schema, from the records of all cases (method 2.2, 2.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segwright.core.errors import DatasetError
from segwright.core.files import write_text
from segwright.inspection.intensities import ValueCounts, mix
from segwright.inspection.records import CaseRecord, compact_json, read_batches
from segwright.inspection.store import load_counts, require_intact_counts

_STATISTICS = (
    "every case with foreground weighs the same: the limit of nnU-Net v2's sampling with replacement;"
    " exact except for percentiles of sketched channels"
)


def build_fingerprint(batch_files: Sequence[Path], store: Path) -> dict[str, Any]:
    """Fingerprint of all cases of the batches, sorted by case id; axes in the order of the stored images.

    Raises:
        DatasetError: there is no case, a case has errors, or no case has any foreground.
        DamagedFileError: a batch or side file is missing or was altered.
    """
    reader, records = read_batches(batch_files)
    return merge_records(records, store, reader)


def merge_records(records: Mapping[str, CaseRecord], store: Path, reader: str) -> dict[str, Any]:
    """The same for records that are at hand. Intensities are read one channel at a time."""
    if not records:
        raise DatasetError("the dataset has no training case; put images into imagesTr and label maps into labelsTr")
    for case_id, record in records.items():
        if record.has_errors or record.fingerprint is None or record.values_file is None:
            raise DatasetError(f"{case_id}: has errors, so there is no fingerprint; correct what checks.tsv lists")
    cases = {case_id: records[case_id].fingerprint for case_id in sorted(records)}
    fingerprints = [fingerprint for fingerprint in cases.values() if fingerprint is not None]
    channels = {len(fingerprint.intensities) for fingerprint in fingerprints}
    if len(channels) != 1:
        text = f"cases from {next(iter(cases))} on have different numbers of channels ({sorted(channels)})"
        raise DatasetError(f"{text}; run inspection again")
    n_channels = channels.pop()
    for case_id in cases:
        require_intact_counts(store, records[case_id])
    statistics = [mix(_counts_of(channel, records, store)) for channel in range(n_channels)]
    if n_channels and statistics[0] is None:
        raise DatasetError("no training case has any foreground, so there is nothing to learn; check the label maps")
    sketched = [sum(case.intensities[channel].sketched for case in fingerprints) for channel in range(n_channels)]
    return {
        "foreground_intensity_properties_per_channel": {
            str(channel): found.to_json() for channel, found in enumerate(statistics) if found is not None
        },
        "median_relative_size_after_cropping": float(
            np.median([fingerprint.relative_size_after_cropping for fingerprint in fingerprints])
        ),
        "shapes_after_crop": [list(fingerprint.shape_after_crop) for fingerprint in fingerprints],
        "spacings": [list(fingerprint.spacing_mm) for fingerprint in fingerprints],
        "segwright": {
            "num_cases": len(cases),
            "cases": list(cases),
            "cases_with_foreground": sum(fingerprint.foreground_voxels > 0 for fingerprint in fingerprints),
            "reader": reader,
            "statistics": _STATISTICS,
            "sketched_cases_per_channel": {str(channel): count for channel, count in enumerate(sketched)},
        },
    }


def write_fingerprint(path: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write dataset_fingerprint.json, keys sorted as v2 does."""
    write_text(path, compact_json(fingerprint))


def _counts_of(channel: int, records: Mapping[str, CaseRecord], store: Path) -> Iterator[ValueCounts]:
    for case_id in sorted(records):
        yield load_counts(store, records[case_id], channel)
