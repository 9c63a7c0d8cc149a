"""Questions to SLURM: what a job is called, and what ``sbatch`` says to a site's options before anything is submitted.

``sbatch --test-only`` submits nothing and answers within a moment, but it also says no where a submission would only
wait: nodes are drained, a partition is down, a job is too large or too long for it. So only answers count that every
submission gets as well; with any other answer the jobs are submitted. Tried with SLURM 22.05.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping
from typing import Any

from segwright.core.errors import SettingsError

SITE_RESOURCES = (
    "slurm_partition", "slurm_account", "slurm_cluster", "cluster", "clusters", "constraint", "qos",
    "gres", "gpu", "gpu_model", "slurm_extra",
)  # fmt: skip
"""Resources of a rule that become options of a site; what is left only says how much a job needs."""

_TIMEOUT_S = 5.0
_REFUSED = (
    "invalid partition", "partition not available (inactive or drain)", "not permitted to use this partition",
    "invalid account", "appears to be invalid",  # the executor looks an account up by itself
    "invalid qos", "invalid feature", "invalid node name", "invalid license", "requested reservation is invalid",
    "access denied to requested reservation", "access/permission denied",
    "invalid generic resource", "invalid trackable resource", "unrecognized option", "invalid option --",
)  # fmt: skip
_SUBMISSION_FAILED = "SLURM sbatch failed"
_PASSING = (
    "unable to contact", "timed out", "temporarily", "try again", "connection", "communication", "zero bytes",
    "not responding", "standby mode", "job submit limit",
)  # fmt: skip


def site_options(resources: Mapping[str, Any], qos: str | None, reservation: str | None) -> tuple[str, ...]:
    """Options as the SLURM executor sends them, without those that say how much a job needs.

    Args:
        resources: values of :data:`SITE_RESOURCES`; None or missing: not set.
        qos, reservation: of all jobs (``slurm-qos``, ``slurm-reservation``).

    Raises:
        SettingsError: the quotes in ``slurm_extra`` do not match.
    """
    given = {name: value for name, value in resources.items() if value is not None}
    cluster = given.get("cluster") or given.get("clusters") or given.get("slurm_cluster")
    gpus, model = given.get("gpu", 1 if given.get("gpu_model") else 0), given.get("gpu_model")
    options = {
        "partition": given.get("slurm_partition"),
        "account": str(given.get("slurm_account", "")).replace(",", " ").split()[:1],
        "clusters": cluster,
        "qos": qos or given.get("qos"),
        "reservation": reservation,
        "gres": given.get("gres"),
        "gpus": f"{model}:{gpus}" if model else gpus,
    }
    asked = [f"--{name}={value[0] if isinstance(value, list) else value}" for name, value in options.items() if value]
    constraint = [f"--constraint={given['constraint']}"] if "constraint" in given else []  # empty has a meaning, too
    extra = str(given.get("slurm_extra", ""))
    try:
        return (*asked, *constraint, *shlex.split(extra))
    except ValueError as error:
        raise SettingsError(f"slurm_extra: {extra}: {error}; write it as \"'--nice=100 --mail-type=FAIL'\"") from error


def require_accepted(options_of: Mapping[str, tuple[str, ...]]) -> None:
    """Ask once for every distinct set of options.

    Args:
        options_of: rule -> :func:`site_options`.

    Raises:
        SettingsError: sbatch will accept no job of these rules; has its words.
    """
    rules_of: dict[tuple[str, ...], list[str]] = {}
    for rule, options in options_of.items():
        rules_of.setdefault(options, []).append(rule)
    refused: dict[str, list[tuple[str, ...]]] = {}  # the same words once, however many options they answer
    for options in rules_of:
        if words := refusal(options):
            refused.setdefault(words, []).append(options)
    if refused:
        raise SettingsError(
            "\n".join(
                f"SLURM refuses the jobs of {', '.join(rule for one in options for rule in rules_of[one])}:\n{words}\n"
                f"This was the answer to: {shlex.join(_question(options[0]))}"
                for words, options in refused.items()
            )
            + "\nNothing was submitted. Correct the profile: default-resources holds for all rules, set-resources for "
            "one (slurm_partition, slurm_account, qos, constraint, gres, slurm_extra)."
        )


def job_name(job_id: str) -> str | None:
    """What the job was called when it was submitted; None if SLURM cannot be asked from here.

    SLURM_JOB_NAME is no help: in a job step it names the step's program.
    """
    answer = _ask(["squeue", "--noheader", f"--jobs={job_id}", "--format=%j"])
    return answer.stdout.strip() or None if answer else None


def refusal(options: tuple[str, ...]) -> str | None:
    """sbatch's words if no job with these options will be accepted; None if it is, or if that cannot be known."""
    answer = _ask(_question(options))
    if answer is None or answer.returncode == 0 or "--test-only" in answer.stderr:  # or sbatch lacks this option
        return None
    return answer.stderr.strip() if _says(answer.stderr, _REFUSED) else None


def refused_for_good(message: str) -> bool:
    """Whether the executor's message about a failed job says that sbatch refused it and would do so again."""
    words = message.split("sbatch call:")[0]
    return _says(words, _REFUSED) or (words.startswith(_SUBMISSION_FAILED) and not _says(words, _PASSING))


def _ask(command: list[str]) -> subprocess.CompletedProcess[str] | None:
    """None if there is no such command, or if the controller does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _question(options: tuple[str, ...]) -> list[str]:
    return ["sbatch", "--test-only", *options, "--wrap=true"]


def _says(words: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in words.lower() for phrase in phrases)
