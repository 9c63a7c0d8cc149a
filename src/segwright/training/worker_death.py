"""Why a worker process ended or stands still, in words a user can act on."""

from __future__ import annotations

import contextlib
import errno
import signal
from pathlib import Path

import psutil

_GIB = 1 << 30
_MORE_MEMORY = "ask for more memory or use fewer workers (execution.loader_workers)"


def oom_kills() -> int | None:
    """How often the out-of-memory killer has struck in this control group, else on this machine; None: unknown."""
    with contextlib.suppress(OSError, StopIteration, KeyError, ValueError):  # no such groups, or they do not count
        group = next(
            line.split("::", 1)[1].strip()
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if "::" in line
        )
        return _counter(Path(f"/sys/fs/cgroup{group}") / "memory.events")
    with contextlib.suppress(OSError, KeyError, ValueError):  # not Linux, or an old one
        return _counter(Path("/proc/vmstat"))
    return None


def _counter(path: Path) -> int:
    fields = dict(line.split() for line in path.read_text().splitlines() if len(line.split()) == 2)
    return int(fields["oom_kill"])


def explain_exit(exit_code: int, oom_kills_before: int | None, crash_log: str) -> str:
    """What an exit code means (negative: ended by that signal), with what to do."""
    if exit_code >= 0:
        return f"it exited with code {exit_code} without a word" + _quoted(crash_log)
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = "unknown"
    text = f"it was ended by signal {-exit_code} ({name})"
    if -exit_code == signal.SIGKILL:
        return f"{text}: {_explain_kill(oom_kills_before)}"
    if -exit_code == signal.SIGBUS:
        return (
            f"{text}: memory it had mapped is gone. Either no memory is left for shared memory ({_memory_text()}): ask "
            "for more or use fewer workers; or the case's stored file was truncated while in use: delete it and "
            f"preprocess again{_quoted(crash_log)}"
        )
    if -exit_code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL):
        return (
            f"{text}: a crash inside compiled code. If it happens with this case every time, delete its stored file "
            f"and preprocess it again; otherwise suspect the installation or the machine{_quoted(crash_log)}"
        )
    return f"{text}: another program ended it{_quoted(crash_log)}"


def explain_error(error: BaseException) -> str | None:
    """The plain cause of an exception raised in a worker, where it has one."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return f"out of memory ({_memory_text()}); {_MORE_MEMORY}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        return f"shared memory or a disk is full{where}; free some space, or use fewer workers"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit (ulimit -n)"
    return None


def activity(pid: int) -> tuple[float, str]:
    """CPU seconds a process has used and its state in words; (0, "gone") if it does not exist."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return times.user + times.system, str(process.status())
    except psutil.Error:
        return 0.0, "gone"


def _explain_kill(oom_kills_before: int | None) -> str:
    now = oom_kills()
    if now is not None and oom_kills_before is not None and now > oom_kills_before:
        return f"out of memory, the kernel's out-of-memory killer struck ({_memory_text()}); {_MORE_MEMORY}"
    return f"out of memory, or killed by someone ({_memory_text()}); if it was memory, {_MORE_MEMORY}"


def _memory_text() -> str:
    memory = psutil.virtual_memory()
    return f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB of this machine are available now"


def _quoted(crash_log: str) -> str:
    return f"\n{crash_log.strip()}" if crash_log.strip() else ""
