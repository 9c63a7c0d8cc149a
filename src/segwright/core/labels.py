"""What the label values of a dataset mean: labels, regions, the ignore label (method 1.2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segwright.core.errors import DatasetError, brief

LabelKey = int | tuple[int, ...]
"""One evaluated or predicted structure: a label value, or the values whose union is a region."""

_LABEL_TEXT = re.compile(r"[0-9]{1,5}")
_NAME_MAX = 200
_LABEL_MAX = 32_767  # stored label maps and batches are int16, as in v2


@dataclass(frozen=True)
class Labels:
    """What the label values of a dataset mean (method 1.2: the label manager).

    Attributes:
        entries: (name, value or region values) in declaration order, background and ignore label included.
        regions_class_order: label value written for each predicted region, later ones overwrite earlier ones.
    """

    entries: tuple[tuple[str, LabelKey], ...]
    regions_class_order: tuple[int, ...] | None = None

    @staticmethod
    def from_json(dataset_json: Mapping[str, Any]) -> Labels:
        """Read ``labels`` and ``regions_class_order`` of a dataset.json.

        Raises:
            DatasetError: no background 0, values that are not integers, or without regions not consecutive, a
                misplaced ignore label, or a regions_class_order that does not fit the regions.
        """
        declared = dataset_json.get("labels")
        if not isinstance(declared, Mapping) or not declared:
            raise DatasetError("dataset.json: `labels` must be a mapping such as {background: 0, tumour: 1}")
        names = dataset_json.get("label_order", list(declared))
        if not isinstance(names, (list, tuple)) or sorted(map(str, names)) != sorted(map(str, declared)):
            raise DatasetError("dataset.json: `label_order` must name every entry of `labels` once")
        for name in declared:
            require_name(name, "label")
        texts = _may_hold_texts(declared)
        entries = tuple((str(name), _label_key(name, declared[name], texts=texts)) for name in names)
        order = dataset_json.get("regions_class_order")
        labels = Labels(entries, None if order is None else _class_order(order))
        labels._check()
        return labels

    def to_json(self) -> dict[str, Any]:
        """As in dataset.json, plus the declaration order: regions go by position, and sorted keys would lose it."""
        record: dict[str, Any] = {
            "labels": {name: list(key) if isinstance(key, tuple) else key for name, key in self.entries},
            "label_order": [name for name, _ in self.entries],
        }
        if self.regions_class_order is not None:
            record["regions_class_order"] = list(self.regions_class_order)
        return record

    @property
    def has_regions(self) -> bool:
        """Region training is on if and only if at least one entry lists more than one value."""
        return any(isinstance(key, tuple) and len(key) > 1 for _, key in self.entries)

    @property
    def ignore_label(self) -> int | None:
        for name, key in self.entries:
            if name == "ignore":
                return int(key) if isinstance(key, int) else None
        return None

    @property
    def all_labels(self) -> tuple[int, ...]:
        """Sorted label values without the ignore label, background included."""
        values: set[int] = set()
        for name, key in self.entries:
            if name != "ignore":
                values.update(key if isinstance(key, tuple) else (key,))
        return tuple(sorted(values))

    @property
    def declared_labels(self) -> tuple[int, ...]:
        """Sorted label values with the ignore label. They are 0, 1, ... unless regions leave gaps."""
        return self.all_labels if self.ignore_label is None else (*self.all_labels, self.ignore_label)

    @property
    def foreground_labels(self) -> tuple[int, ...]:
        return tuple(value for value in self.all_labels if value != 0)

    @property
    def foreground_regions(self) -> tuple[LabelKey, ...]:
        """Declared regions in order, without background and ignore; scalar regions stay integers."""
        regions: list[LabelKey] = []
        for name, key in self.entries:
            values = key if isinstance(key, tuple) else (key,)
            if name != "ignore" and set(values) != {0}:
                regions.append(key)
        return tuple(regions)

    @property
    def foreground_keys(self) -> tuple[LabelKey, ...]:
        """What is sampled, scored and postprocessed: regions in region training, else foreground labels."""
        return self.foreground_regions if self.has_regions else self.foreground_labels

    @property
    def num_outputs(self) -> int:
        """Output channels of the network: one a region, or one a label with background."""
        return len(self.foreground_regions) if self.has_regions else len(self.all_labels)

    @property
    def annotated_key(self) -> tuple[int, ...]:
        """Key of "every annotated voxel" among the class locations: (-1, *all labels), as in v2."""
        return (-1, *self.all_labels)

    @property
    def label_map_dtype(self) -> str:
        """Type of predicted label maps: uint8, or uint16 where a value is 255 or more."""
        return "uint8" if max((*self.all_labels, *(self.regions_class_order or ()))) < 255 else "uint16"

    def name_of(self, key: LabelKey) -> str:
        """The declared name of a key; the first one if several entries share it."""
        wanted = set(key) if isinstance(key, tuple) else {key}
        for name, declared in self.entries:
            if (set(declared) if isinstance(declared, tuple) else {declared}) == wanted:
                return name
        return key_text(key)

    def _check(self) -> None:
        named = dict(self.entries)
        if named.get("background") not in (0, (0,)):
            raise DatasetError("dataset.json: labels.background must exist and be 0")
        ignore = named.get("ignore")
        if isinstance(ignore, tuple):
            raise DatasetError("dataset.json: labels.ignore must be one integer, not a list")
        highest = max(self.all_labels)
        if ignore not in (None, highest + 1):
            raise DatasetError(f"dataset.json: labels.ignore is {ignore} but must be the highest label, {highest + 1}")
        values = list(self.declared_labels)
        # An output is a position among plain labels, but a mask of any values in region training.
        if not self.has_regions and values != list(range(len(values))):
            missing = sorted(set(range(max(values) + 1)) - set(values))
            raise DatasetError(
                f"dataset.json: label values must be consecutive; missing: {brief(missing)}, found: {brief(values)}"
            )
        if self.has_regions:
            count = len(self.foreground_regions)
            if self.regions_class_order is None or len(self.regions_class_order) != count:
                raise DatasetError(
                    f"dataset.json: regions_class_order must list one label value for each of the {count} regions"
                )


def key_text(key: LabelKey) -> str:
    """Name of a key in v2's JSON files: ``"1"`` for a label, ``"(1, 2)"`` for a region."""
    return str(key if isinstance(key, int) else tuple(int(value) for value in key))


def key_from_text(text: str) -> LabelKey:
    """Inverse of :func:`key_text`."""
    numbers = [int(number) for number in re.findall(r"-?\d+", text)]
    return tuple(numbers) if "(" in text else numbers[0]


def key_values(key: LabelKey) -> tuple[int, ...]:
    """The label values a key stands for."""
    return key if isinstance(key, tuple) else (key,)


def require_name(name: Any, kind: str) -> None:
    """Names of labels and channels are shown, written into tables and reports, and never become paths.

    Raises:
        DatasetError: it is no text, empty, longer than 200 characters, or holds control characters.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > _NAME_MAX:
        raise DatasetError(
            f"dataset.json: the {kind} name {brief(name, 60)!r} must be a text of 1 to {_NAME_MAX} characters"
        )
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise DatasetError(f"dataset.json: the {kind} name {brief(name, 60)!r} holds a control character; rename it")


def _class_order(order: Any) -> tuple[int, ...]:
    if not isinstance(order, (list, tuple)) or not all(_is_label(value) for value in order):
        raise DatasetError(f"dataset.json: regions_class_order must list label values, not {brief(order)}")
    return tuple(int(value) for value in order)


def _is_label(value: Any) -> bool:
    """A whole number that a label map can hold."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 <= value <= _LABEL_MAX and value == int(value)


def _may_hold_texts(declared: Mapping[str, Any]) -> bool:
    """Whether values may be written as texts: plain labels whose names are not numbers as well.

    v2 converts the values of plain labels and compares those of regions as they are; where every name is a number, the
    entries most likely stand the other way round, as in v1.
    """
    regions = any(isinstance(value, (list, tuple)) and len(value) > 1 for value in declared.values())
    return not regions and not all(name.isdecimal() for name in declared)


def _label_key(name: str, value: Any, *, texts: bool) -> LabelKey:
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if texts and name != "ignore":
        numbers = [int(each) if isinstance(each, str) and _LABEL_TEXT.fullmatch(each) else each for each in numbers]
    for number in numbers:
        if not _is_label(number):
            if name.isdecimal() and isinstance(value, str):
                raise DatasetError(
                    f'dataset.json: labels must be name: number, {{"{brief(value, 60)}": {int(name)}}}, and stand the'
                    " other way round, as in MSD and nnU-Net v1; turn them, or let `segwright convert msd|v1` do it"
                )
            raise DatasetError(
                f"dataset.json: labels.{brief(name)} must be an integer or a list of integers, from 0 to {_LABEL_MAX},"
                f" not {brief(repr(value))}"
            )
    if isinstance(value, (list, tuple)):
        if not value:
            raise DatasetError(f"dataset.json: labels.{brief(name)} is an empty list")
        return tuple(int(number) for number in numbers)
    return int(numbers[0])
