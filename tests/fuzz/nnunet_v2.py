"""Models of nnU-Net v2: folders, zips, checkpoints and the pickles in them."""

from __future__ import annotations

import io
import json
import pickle
import random
import tempfile
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.fuzz.images import mutated_text_header
from tests.fuzz.mutations import mutated, mutated_json
from tests.fuzz.project import use_unchanged
from tests.fuzz.target import Sample, Sampler, Target
from tests.fuzz.zip_changes import mutated_zip


@cache
def _v2_model() -> Mapping[str, bytes]:
    from tests.unit.sharing.nnunet_v2 import made

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / made.DATASET
        root.mkdir()
        made.model_folder(root, "3d_fullres", ("0",))
        made.crossval(root / f"{made.TRAINER}__{made.PLANS}__3d_fullres" / "crossval_results_folds_0", 0.8, [1])
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


_EVIL = (
    b"cos\nsystem\n(S'true'\ntR.",
    pickle.dumps(print, 4),
    b"\x80\x04]" + b"]" * 5000 + b".",
    b"(" * 100_000 + b".",
)


def _changed_pickle(rng: random.Random, content: bytes) -> bytes:
    if rng.random() < 0.1:
        return rng.choice(_EVIL)
    if rng.random() < 0.2:
        return mutated_text_header(rng, content, ())  # protocol 0 is lines
    return mutated(rng, content, _EVIL)


def _changed_checkpoint(rng: random.Random, content: bytes) -> bytes:
    """Its pickle changed inside the zip; or the zip."""
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    if rng.random() < 0.6:
        name = next(name for name in files if name.endswith("data.pkl"))
        files[name] = _changed_pickle(rng, files[name])
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
            for key, value in files.items():
                packed.writestr(zipfile.ZipInfo(key), value)  # not the time of now
        return stream.getvalue()
    return mutated_zip(rng, files, stored=True)


def _v2_sampler() -> Sampler:
    from segwright.sharing.nnunet_v2.checkpoint_in import read_checkpoint
    from segwright.sharing.nnunet_v2.import_model import import_model
    from segwright.sharing.nnunet_v2.postprocessing_in import rules_from_pickle

    files = dict(_v2_model())
    checkpoint = next(name for name in files if name.endswith(".pth"))
    rules = next(name for name in files if name.endswith(".pkl"))

    unchanged = {f"Dataset007_Made/{name}": content for name, content in files.items()}
    use_unchanged(unchanged, lambda folder: import_model(folder / "Dataset007_Made", folder / "out"))

    def draw(rng: random.Random) -> Sample:
        kind = rng.random()
        if kind < 0.4:
            changed = {"checkpoint_final.pth": _changed_checkpoint(rng, files[checkpoint])}
            return Sample(changed, lambda folder: read_checkpoint(folder / "checkpoint_final.pth"), tuple(changed))
        if kind < 0.6:
            changed = {"postprocessing.pkl": _changed_pickle(rng, files[rules])}
            return Sample(changed, lambda folder: rules_from_pickle(folder / "postprocessing.pkl"), tuple(changed))
        changed = dict(files)
        name = rng.choice(sorted(files))
        if name.endswith(".json"):
            changed[name] = mutated_json(rng, json.loads(files[name]))
        else:
            changed[name] = (_changed_checkpoint if name == checkpoint else _changed_pickle)(rng, files[name])
        if kind < 0.8:
            made = {f"Dataset007_Made/{key}": value for key, value in changed.items()}

            def use(folder: Path) -> object:
                return import_model(folder / "Dataset007_Made", folder / "out")

            return Sample(made, use, ("Dataset007_Made", Path(name).name, "out"))
        packed = mutated_zip(rng, {f"Dataset007_Made/{key}": value for key, value in changed.items()})
        return Sample(
            {"v2.zip": packed},
            lambda folder: import_model(folder / "v2.zip", folder / "out"),
            ("v2.zip", "Dataset007_Made"),
        )

    return draw


def nnunet_v2_targets() -> list[Target]:
    return [Target("nnunet_v2", _v2_sampler, 2_000)]
