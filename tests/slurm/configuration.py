"""The files of a throw-away SLURM: slurm.conf, gres.conf, cgroup.conf and slurmdbd.conf.

Several nodes live on one machine: one slurmd each, with its own port, spool folder and pid file. What the nodes claim
to have (CPUs, memory, GPUs) is made up; SLURM books it all the same and, with control groups, enforces the memory.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """What the cluster claims to have.

    Attributes:
        partitions: number of nodes of each partition; nodes are called n1, n2, ... over all of them.
        shared: partitions of lower priority on the nodes of another one; its jobs preempt theirs (requeue).
        accounting: a database, so that sacct works.
        cgroups: track processes by control groups and enforce memory.
        grace_min: how long a job may overrun; a loaded machine starts jobs slowly, and the shortest limit is a minute.
    """

    partitions: Mapping[str, int]
    shared: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 8
    memory_mb: int = 48000
    gpus: int = 1
    accounting: bool = False
    cgroups: bool = False
    grace_min: int = 1
    base_port: int = 16817

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(1, sum(self.partitions.values()) + 1))

    def nodes_of(self, partition: str) -> tuple[str, ...]:
        first = 0
        for name, count in self.partitions.items():
            if name == self.shared.get(partition, partition):
                return self.nodes[first : first + count]
            first += count
        raise KeyError(partition)


def write_configuration(folder: Path, layout: Layout) -> None:
    """All files into the cluster's folder."""
    (folder / "slurm.conf").write_text("\n".join([*_daemons(folder, layout), *_machines(layout)]) + "\n")
    (folder / "gres.conf").write_text(_gres(folder, layout))
    if layout.cgroups:
        (folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nConstrainRAMSpace=yes\nAllowedRAMSpace=100\n"
            "ConstrainSwapSpace=yes\nAllowedSwapSpace=0\n"
        )
    if layout.accounting:
        database = folder / "slurmdbd.conf"
        database.touch(mode=0o600)  # slurmdbd refuses a file that others can read
        database.write_text(_database(folder, layout))


def _daemons(folder: Path, layout: Layout) -> list[str]:
    lines = [
        "ClusterName=segwrighttest",
        f"SlurmctldHost={platform.node().split('.')[0]}(127.0.0.1)",
        f"SlurmctldPort={layout.base_port}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        "CredType=cred/munge",
        f"AuthInfo=socket={folder}/munge/socket",
        f"StateSaveLocation={folder}/state",
        f"SlurmdSpoolDir={folder}/spool-%n",
        f"SlurmctldPidFile={folder}/run/slurmctld.pid",
        f"SlurmdPidFile={folder}/run/slurmd-%n.pid",
        f"SlurmctldLogFile={folder}/log/slurmctld.log",
        f"SlurmdLogFile={folder}/log/slurmd-%n.log",
        f"ProctrackType=proctrack/{'cgroup' if layout.cgroups else 'linuxproc'}",
        f"TaskPlugin=task/{'cgroup' if layout.cgroups else 'none'}",
        "MpiDefault=none",
        "SwitchType=switch/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "DefMemPerCPU=200",
        "SlurmdParameters=config_overrides",  # believe this file about CPUs and memory, not the machine
        # schedule at once, notice dead nodes soon, kill soon
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=1,bf_interval=1",
        "SlurmctldTimeout=10",
        "SlurmdTimeout=10",
        "KillWait=5",
        "UnkillableStepTimeout=30",
        "InactiveLimit=0",
        f"OverTimeLimit={layout.grace_min}",
        "MessageTimeout=20",
        "ReturnToService=2",
        "MinJobAge=3600",  # finished jobs stay visible to squeue and scontrol
        "JobRequeue=1",
    ]
    if layout.accounting:
        lines += [
            "AccountingStorageType=accounting_storage/slurmdbd",
            "AccountingStorageHost=127.0.0.1",
            f"AccountingStoragePort={layout.base_port + 1}",
            f"AccountingStoragePass={folder}/munge/socket",  # clients of the database do not read AuthInfo
            "AccountingStorageTRES=gres/gpu",  # without the database slurmctld would die of this line
            "AccountingStorageEnforce=associations",
            "AccountingStoreFlags=job_comment",
            "JobAcctGatherType=jobacct_gather/linux",
            "JobAcctGatherFrequency=5",
        ]
    else:
        lines += ["AccountingStorageType=accounting_storage/none", "JobAcctGatherType=jobacct_gather/none"]
    if layout.shared:
        lines += ["PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE"]
    return lines


def _machines(layout: Layout) -> list[str]:
    lines = ["GresTypes=gpu"] if layout.gpus else []
    host = platform.node().split(".")[0]
    for number, node in enumerate(layout.nodes, start=1):
        gres = f" Gres=gpu:made_up:{layout.gpus}" if layout.gpus else ""
        lines.append(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 "
            f"Port={layout.base_port + 10 + number} CPUs={layout.cpus} RealMemory={layout.memory_mb} "
            f"State=UNKNOWN{gres}"
        )
    for name in [*layout.partitions, *layout.shared]:
        tier = 1 if name in layout.shared else 2
        default = "YES" if name == next(iter(layout.partitions)) else "NO"
        lines.append(
            f"PartitionName={name} Nodes={','.join(layout.nodes_of(name))} Default={default} MaxTime=INFINITE "
            f"DefaultTime=10 State=UP PriorityTier={tier}"
        )
    return lines


def _gres(folder: Path, layout: Layout) -> str:
    """GPUs are links to /dev/null: slurmd wants character devices, and only looks at what kind they are."""
    if not layout.gpus:
        return "AutoDetect=off\n"
    span = "0" if layout.gpus == 1 else f"[0-{layout.gpus - 1}]"
    nodes = f"n[1-{len(layout.nodes)}]"
    return f"AutoDetect=off\nNodeName={nodes} Name=gpu Type=made_up File={folder}/dev/nvidia{span}\n"


def _database(folder: Path, layout: Layout) -> str:
    return "\n".join(
        [
            "AuthType=auth/munge",
            f"AuthInfo=socket={folder}/munge/socket",
            f"DbdHost={platform.node().split('.')[0]}",
            "DbdAddr=127.0.0.1",
            f"DbdPort={layout.base_port + 1}",
            "SlurmUser=root",
            f"PidFile={folder}/run/slurmdbd.pid",
            f"LogFile={folder}/log/slurmdbd.log",
            "StorageType=accounting_storage/mysql",
            "StorageHost=localhost",
            "StorageUser=root",
            "StorageLoc=slurm_acct_db",
            "",
        ]
    )
