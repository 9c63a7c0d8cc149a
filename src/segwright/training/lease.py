"""GPU slots: jobs on one machine share its GPUs without knowing of each other (design, decision 9).

A slot is a file lock, held as long as the process lives; the kernel frees it even after ``kill -9``. This module
imports no torch, because ``CUDA_VISIBLE_DEVICES`` must be set before CUDA starts.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segwright.core.errors import SettingsError, TrainingError

log = logging.getLogger(__name__)

_UUID = re.compile(r"UUID: ((?:GPU|MIG)-[0-9a-zA-Z/-]+)")
_SAY_EVERY_S = 60.0
_WHERE_SET = "device (--device, in a configuration execution.device)"


@dataclass
class GpuLease:
    """A held slot. Keep it until the work is done; :meth:`release` gives it back early."""

    gpu: str
    slot: int
    descriptor: int

    def release(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def acquire_gpu(
    jobs_per_gpu: int,
    lock_folder: Path | None = None,
    *,
    environment: MutableMapping[str, str] = os.environ,
    gpus: Sequence[str] | None = None,
    poll_s: float = 1.0,
    timeout_s: float | None = None,
) -> GpuLease | None:
    """Take a free slot, waiting for one if need be, and make only its GPU visible to this process.

    Returns None, and changes nothing, where a scheduler or the user already chose (``SLURM_JOB_ID`` or
    ``CUDA_VISIBLE_DEVICES`` is set) and where the machine has no NVIDIA GPU.

    Args:
        jobs_per_gpu: slots of each GPU.
        lock_folder: None: a private folder in the machine's temporary directory; never a shared file system.
        gpus: identities of the GPUs; None: ask the driver.
        timeout_s: give up after this time; None: never.

    Raises:
        TrainingError: no slot became free in ``timeout_s``.
    """
    if environment.get("SLURM_JOB_ID") or "CUDA_VISIBLE_DEVICES" in environment:
        return None
    gpus = find_gpus() if gpus is None else gpus
    if not gpus:
        return None
    if _cuda_started():
        raise RuntimeError("acquire_gpu must be called before CUDA starts")
    folder = _private_folder() if lock_folder is None else Path(lock_folder)
    folder.mkdir(parents=True, exist_ok=True)
    started = said = time.monotonic()
    while True:
        lease = _try_slots(folder, gpus, jobs_per_gpu)
        if lease is not None:
            environment["CUDA_VISIBLE_DEVICES"] = lease.gpu
            log.info("using %s, slot %d", lease.gpu, lease.slot)
            return lease
        now = time.monotonic()
        if timeout_s is not None and now - started >= timeout_s:
            raise TrainingError(
                f"all {len(gpus) * jobs_per_gpu} GPU slots ({folder}) are in use for {timeout_s:.0f} s; "
                "wait for the other jobs or raise execution.jobs_per_gpu"
            )
        if now - said >= _SAY_EVERY_S:
            said = now
            log.info("waiting for one of %d GPU slots (%s)", len(gpus) * jobs_per_gpu, folder)
        time.sleep(poll_s)


def find_gpus(run: Callable[[], str] | None = None, proc: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Identities (UUIDs) of the NVIDIA GPUs, or of their MIG instances; empty without a driver.

    Args:
        run: gives the text of ``nvidia-smi -L``; replaced in tests.
    """
    try:
        listing = (run or _nvidia_smi)()
    except (OSError, subprocess.SubprocessError):
        listing = ""
    found = parse_listing(listing)
    if not found and proc.is_dir():
        for information in sorted(proc.glob("*/information")):
            match = re.search(r"GPU UUID:\s*(GPU-[0-9a-fA-F-]{36})", information.read_text(errors="replace"))
            if match:
                found.append(match[1])
    return found


def parse_listing(listing: str) -> list[str]:
    """UUIDs in the text of ``nvidia-smi -L``; a GPU divided into MIG instances counts as these."""
    found: list[str] = []
    for match in _UUID.finditer(listing):
        if match[1].startswith("MIG-") and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(match[1])
    return found


def resolve_device(setting: str) -> str:
    """``auto`` -> ``cuda`` if there is a usable one, else ``cpu``; anything else is checked.

    Raises:
        SettingsError: the wanted device does not exist here.
    """
    import torch  # late: everything above must run before

    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = setting.split(":")[0]
    available: Mapping[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
    }
    if kind not in available:
        raise SettingsError(f"{_WHERE_SET} {setting} is unknown; use auto, cpu, cuda or mps")
    if not available[kind]():
        why = f" ({why_no_cuda()})" if kind == "cuda" else ""
        raise SettingsError(f"{_WHERE_SET} is {setting} but torch finds no such device here{why}; use auto or cpu")
    return setting


def why_no_cuda() -> str:
    """Why torch finds no NVIDIA GPU, as far as torch itself can tell."""
    import torch  # late, as above

    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install a build with it"
    return f"torch {torch.__version__} is built for CUDA {torch.version.cuda}; nvidia-smi says what the driver supports"


def _try_slots(folder: Path, gpus: Sequence[str], jobs_per_gpu: int) -> GpuLease | None:
    for slot in range(jobs_per_gpu):  # every GPU's first slot before any second one
        for gpu in gpus:
            name = re.sub(r"[^0-9a-zA-Z-]", "_", gpu)
            descriptor = os.open(folder / f"{name}.{slot}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            return GpuLease(gpu, slot, descriptor)
    return None


def _private_folder() -> Path:
    """A folder of this user alone: another user's folder of that name is refused."""
    folder = Path(tempfile.gettempdir()) / f"segwright-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise TrainingError(f"{folder} belongs to somebody else; remove it, or set TMPDIR")
    return folder


def _nvidia_smi() -> str:
    return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30).stdout


def _cuda_started() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
