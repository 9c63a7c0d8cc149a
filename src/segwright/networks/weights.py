"""Weights of a network as safetensors, and the names public nnU-Net v2 weights use for them (method 7.2).

In v2's files one tensor appears under several names: each convolution once as ``conv`` and once as ``all_modules.0``,
and the whole encoder a second time below ``decoder.encoder``. Here a tensor has one canonical name, written once;
every alias is understood when reading, and :func:`with_aliases` gives all of them for export.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from segwright.core.errors import DamagedFileError, ModelError, brief
from segwright.core.files import write_bytes

_WRAPPERS = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile
_INNER_NAMES = {"all_modules.0": "conv", "all_modules.1": "norm"}
_INNER_PATTERN = re.compile(r"\.(all_modules\.[01])\.(weight|bias)$")
_HEAD = ".seg_layers."
_SHOWN = 5
_LENGTH_BYTES = 8  # a safetensors file starts with the length of its JSON header


def canonical_name(key: str) -> str:
    """The one name of a tensor: ``encoder.…conv.weight`` for all of its aliases."""
    while key.startswith(_WRAPPERS):
        key = key.split(".", 1)[1]
    if key.startswith("decoder.encoder."):
        key = key[len("decoder.") :]
    if key.startswith(("encoder.", "decoder.")):
        key = _INNER_PATTERN.sub(lambda match: f".{_INNER_NAMES[match[1]]}.{match[2]}", key)
    return key


def canonical_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under canonical names, each once.

    Raises:
        ModelError: two aliases of one tensor hold different values.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = canonical_name(key)
        known = result.setdefault(name, tensor)
        if known is not tensor and not torch.equal(known, tensor):
            raise ModelError(f"weights: {key} and another name of {name} hold different values; the file is damaged")
    return result


def with_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All names nnU-Net v2 expects, in v2's order of parts: the encoder, then the decoder with the encoder again."""
    canonical = canonical_state(state)
    encoder = {name: tensor for name, tensor in canonical.items() if name.startswith("encoder.")}
    decoder = {name: tensor for name, tensor in canonical.items() if name.startswith("decoder.")}
    rest = {name: tensor for name, tensor in canonical.items() if name not in encoder and name not in decoder}
    return {
        **_with_inner_aliases(encoder),
        **{f"decoder.{name}": tensor for name, tensor in _with_inner_aliases(encoder).items()},
        **_with_inner_aliases(decoder),
        **rest,
    }


def save_weights(path: Path | str, network: nn.Module | Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a network's weights under canonical names; equal weights and metadata give equal bytes."""
    state = network.state_dict() if isinstance(network, nn.Module) else network
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in canonical_state(state).items()}
    write_bytes(path, _sorted_header(safetensors.torch.save(tensors, metadata=dict(metadata))))


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Read weights (names as they stand in the file), on the CPU.

    Raises:
        DamagedFileError: missing, truncated or not a safetensors file.
    """
    path = Path(path)
    if not path.is_file():
        raise DamagedFileError(path, "the file does not exist", "train the model, or correct the path")
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError) as problem:
        raise DamagedFileError(path, f"not a readable safetensors file ({brief(str(problem), 300)})") from problem


def load_into(network: nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Copy weights into ``network``.

    Args:
        strict: True: names and shapes must agree exactly. False: the rule for an initial model (method 14.4): all
            but the segmentation heads must exist with equal shapes and are copied; the heads keep their own weights.

    Raises:
        ModelError: the weights do not fit; names what is missing, unknown or of another shape.
    """
    own, offered = network.state_dict(), canonical_state(state)
    names = {name: canonical_name(name) for name in own}  # a plugin's network may have several names for a tensor, too
    wanted = [name for name in own if strict or _HEAD not in name]
    problems = [f"{name} is missing" for name in wanted if names[name] not in offered]
    problems += [
        f"{name} is {tuple(offered[names[name]].shape)}, the network needs {tuple(own[name].shape)}"
        for name in wanted
        if names[name] in offered and offered[names[name]].shape != own[name].shape
    ]
    if strict:
        known = set(names.values())
        problems += [f"{name} is unknown to the network" for name in offered if name not in known]
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ModelError(
            f"the weights do not fit the network: {'; '.join(problems[:_SHOWN])}{more}; "
            "use plans, channels and labels of the model the weights come from"
        )
    with torch.no_grad():
        for name in wanted:
            own[name].copy_(offered[names[name]])


def _with_inner_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    aliases = {inner: outer for outer, inner in _INNER_NAMES.items()}
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        result[name] = tensor
        parts = name.rsplit(".", 2)
        if len(parts) == 3 and parts[1] in aliases:
            result[f"{parts[0]}.{aliases[parts[1]]}.{parts[2]}"] = tensor
    return result


def _sorted_header(content: bytes) -> bytes:
    """Rewrite the JSON header with sorted keys: the library's order of metadata may vary between processes."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    header = json.dumps(
        json.loads(content[_LENGTH_BYTES:start]), sort_keys=True, separators=(",", ":"), ensure_ascii=True
    ).encode("ascii")
    header += b" " * (-len(header) % _LENGTH_BYTES)  # the format wants aligned data, filled up with spaces
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header + content[start:]
