"""A real SLURM of several nodes on this one machine, started and stopped by tests; needs root and Debian's packages.

Everything it writes lies below one folder; outside there is only the link /run/slurm/conf, because Snakemake's job step
removes SLURM_CONF from the environment. By hand:

    python -m tests.slurm.cluster up DIR       then: export SLURM_CONF=DIR/slurm.conf
    python -m tests.slurm.cluster down DIR
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.slurm.configuration import Layout, write_configuration
from tests.slurm.packages import ACCOUNTING, SLURM, CannotStart, install

DEFAULT_PLACE = Path("/run/slurm/conf")
_MUNGE_KEY_BYTES = 1024


def cgroups_available() -> bool:
    """Control groups of version 1 with a writable memory controller; SLURM 22.05 wants systemd for version 2."""
    memory = Path("/sys/fs/cgroup/memory")
    return (memory / "memory.limit_in_bytes").is_file() and os.access(memory, os.W_OK) and _can_make_group(memory)


@contextmanager
def running_cluster(folder: Path, layout: Layout) -> Iterator[Cluster]:
    """The cluster, up; it is stopped however the block is left."""
    cluster = Cluster(folder, layout)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


class Cluster:
    """The daemons below one folder."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.layout = folder.resolve(), layout

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.conf)}

    def call(self, *command: str, check: bool = True) -> str:
        """Run a SLURM command; gives what it prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environment, timeout=120, cwd=self.folder
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    # --- start ---

    def up(self) -> None:
        """Install, configure, start, and wait until every node is idle.

        Raises:
            CannotStart: says why, with the end of the daemons' logs.
        """
        if os.geteuid() != 0:
            raise CannotStart("only root can start the nodes of a cluster")
        for place in (Path("/etc/slurm/slurm.conf"), DEFAULT_PLACE):
            if place.exists() and not place.is_symlink():
                raise CannotStart(f"{place} exists: this machine belongs to another cluster")
        if DEFAULT_PLACE.is_symlink() and DEFAULT_PLACE.resolve() != self.folder and _alive_pid(DEFAULT_PLACE):
            raise CannotStart(f"another test cluster runs in {DEFAULT_PLACE.resolve()}")
        install(SLURM + (ACCOUNTING if self.layout.accounting else ()))
        for name in ("run", "log", "state", "dev", "munge", *(f"spool-{node}" for node in self.layout.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(self.layout.gpus):
            device = self.folder / "dev" / f"nvidia{number}"
            device.unlink(missing_ok=True)
            device.symlink_to("/dev/null")
        write_configuration(self.folder, self.layout)
        DEFAULT_PLACE.parent.mkdir(parents=True, exist_ok=True)
        DEFAULT_PLACE.unlink(missing_ok=True)
        DEFAULT_PLACE.symlink_to(self.folder)
        self._start_munge()
        if self.layout.accounting:
            self._start_database()
        self._start("slurmctld")
        self._wait("slurmctld does not answer", lambda: "UP" in self.call("scontrol", "ping", check=False))
        for node in self.layout.nodes:
            self.start_node(node)
        self._wait("not every node came up", lambda: self.idle_nodes() >= set(self.layout.nodes))

    def idle_nodes(self) -> set[str]:
        return set(self.call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N", check=False).split())

    def start_node(self, node: str) -> None:
        self._start("slurmd", "-N", node)

    def _start(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment)
        if done.returncode:
            raise CannotStart(f"{' '.join(command)}: {done.stdout}{done.stderr}{self.logs()}")

    def _start_munge(self) -> None:
        """On a private socket; munged refuses folders that its group or others can write to."""
        home = self.folder / "munge"
        (home / "key").write_bytes(os.urandom(_MUNGE_KEY_BYTES))
        (home / "key").chmod(0o400)
        home.chmod(0o711)
        for parent in self.folder.parents:  # its user must be able to come here
            if parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o111)
        self.folder.chmod(0o755)
        subprocess.run(["chown", "-R", "munge:", str(home)], check=True)
        self._start(
            "runuser", "-u", "munge", "--", "munged", "--force", f"--key-file={home}/key", f"--socket={home}/socket",
            f"--pid-file={home}/pid", f"--log-file={home}/log", f"--seed-file={home}/seed",
        )  # fmt: skip
        self._wait("munged wrote no pid", lambda: (home / "pid").is_file() and bool((home / "pid").read_text().strip()))

    def _start_database(self) -> None:
        home, socket = self.folder / "mysql", self.folder / "mysql" / "socket"
        home.mkdir(exist_ok=True)
        subprocess.run(["chown", "mysql:", str(home)], check=True)
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={home}/data", "--skip-test-db",
             "--auth-root-authentication-method=socket"], check=True, capture_output=True,
        )  # fmt: skip
        with (self.folder / "log" / "mariadb.log").open("w") as log:
            server = subprocess.Popen(
                ["mariadbd", "--no-defaults", "--user=mysql", f"--datadir={home}/data", f"--socket={socket}",
                 f"--pid-file={home}/pid", "--skip-networking", "--innodb-buffer-pool-size=64M",
                 "--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        (self.folder / "run" / "mariadbd.pid").write_text(str(server.pid))
        client = ("mariadb", "--no-defaults", f"--socket={socket}", "-e")
        self._wait(
            "mariadbd did not start", lambda: subprocess.run([*client, "select 1"], capture_output=True).returncode == 0
        )
        self.call(*client, "create database slurm_acct_db")
        environment = {**self.environment, "MYSQL_UNIX_PORT": str(socket)}
        done = subprocess.run(["slurmdbd"], env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotStart(f"slurmdbd: {done.stderr}{self.logs()}")
        self._wait("slurmdbd does not answer", lambda: bool(self.call("sacctmgr", "-n", "list", "qos", check=False)))
        self.call("sacctmgr", "-i", "add", "cluster", "segwrighttest")
        self.call("sacctmgr", "-i", "add", "account", "lab", "Description=tests", "Organization=tests")
        self.call("sacctmgr", "-i", "add", "user", "root", "Account=lab")

    def _wait(self, complaint: str, done: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise CannotStart(f"{complaint} within {seconds:.0f} s\n{self.logs()}")
            time.sleep(0.2)

    def logs(self, lines: int = 15) -> str:
        """The end of every daemon's log."""
        texts = []
        for path in [*sorted((self.folder / "log").glob("*.log")), self.folder / "munge" / "log"]:
            if path.is_file():
                texts.append(f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join(texts)

    # --- nodes and the end ---

    def crash_node(self, node: str) -> int:
        """Kill a node's slurmd, its step daemons and its job processes; gives how many there were."""
        victims = [*self._daemon(f"slurmd-{node}"), *self._processes(node)]
        for victim in victims:
            _kill(victim)
        (self.folder / "run" / f"slurmd-{node}.pid").unlink(missing_ok=True)
        return len(victims)

    def down(self) -> None:
        """Stop everything that :meth:`up` started."""
        if self._daemon("slurmctld"):
            self.call("scancel", "--quiet", "--user=root", check=False)
            end = time.monotonic() + 15
            while self.call("squeue", "-h", check=False).strip() and time.monotonic() < end:
                time.sleep(0.3)
        _stop([*self._daemon("slurmctld"), *(d for node in self.layout.nodes for d in self._daemon(f"slurmd-{node}"))])
        for process in self._processes(None):
            _kill(process)
        for name in ("slurmdbd", "mariadbd"):  # the writer before its database
            _stop(self._daemon(name))
        _stop(self._daemon("munged", self.folder / "munge" / "pid"))
        if DEFAULT_PLACE.is_symlink() and DEFAULT_PLACE.resolve() == self.folder:
            DEFAULT_PLACE.unlink()
        for group in sorted(Path("/sys/fs/cgroup").glob("*/slurm*"), reverse=True):
            for folder in [*sorted(group.rglob("*/"), reverse=True), group]:
                _remove_group(folder)

    def _daemon(self, name: str, pid_file: Path | None = None) -> list[psutil.Process]:
        """The process of a pid file, if it still is that program."""
        try:
            process = psutil.Process(int((pid_file or self.folder / "run" / f"{name}.pid").read_text()))
            return [process] if process.name() == name.split("-")[0] else []
        except (OSError, ValueError, psutil.NoSuchProcess):
            return []

    def _processes(self, node: str | None) -> list[psutil.Process]:
        """Step daemons and job processes of one node (None: of all) of this cluster."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.name().startswith("slurmstepd"):
                    logs = [
                        Path(file.path).name for file in process.open_files() if file.path.startswith(str(self.folder))
                    ]
                    if any(log == f"slurmd-{node}.log" if node else log.startswith("slurmd-") for log in logs):
                        found.append(process)
                else:
                    environment = process.environ()
                    mine = environment.get("SLURM_CONF") == str(self.conf) or "SLURM_CONF" not in environment
                    where = environment.get("SLURMD_NODENAME")
                    if mine and where in ((node,) if node else self.layout.nodes) and process.pid != os.getpid():
                        found.append(process)
            except (psutil.Error, OSError):
                continue
        return found


def _stop(processes: list[psutil.Process]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + 20
    while (running := [process for process in processes if _runs(process)]) and time.monotonic() < end:
        time.sleep(0.1)
    for process in running:
        _kill(process)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _can_make_group(memory: Path) -> bool:
    probe = memory / f"segwright-probe-{os.getpid()}"
    try:
        probe.mkdir()
        probe.rmdir()
    except OSError:
        return False
    return True


def _remove_group(folder: Path) -> None:
    if folder.is_dir():
        with contextlib.suppress(OSError):  # still in use, or not ours
            folder.rmdir()


def _alive_pid(place: Path) -> bool:
    try:
        return psutil.Process(int((place / "run" / "slurmctld.pid").read_text())).name() == "slurmctld"
    except (OSError, ValueError, psutil.NoSuchProcess):
        return False


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("up", "down"):
        print(__doc__)
        return 2
    cluster = Cluster(Path(arguments[1]), Layout({"main": 2}, cgroups=cgroups_available()))
    if arguments[0] == "down":
        cluster.down()
        shutil.rmtree(cluster.folder)
        return 0
    try:
        cluster.up()
    except BaseException:
        cluster.down()
        raise
    print(f"export SLURM_CONF={cluster.conf}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
