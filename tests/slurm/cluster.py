"""A throw-away Slurm on this machine: munge, a controller and two fake nodes with fake GPUs, on loopback only.

Started by hand (no systemd, no cgroups), each daemon a child of the test process, stopped by its own pid.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = (
    "slurmctld",
    "slurmd",
    "sbatch",
    "srun",
    "squeue",
    "scontrol",
    "scancel",
    "sinfo",
    "munged",
    "munge",
    "setpriv",
)
SYSTEM_FOLDER = Path("/etc/slurm")
CONFIGURATION = ("slurm.conf", "gres.conf")
NODES = ("n1", "n2")
GPUS_PER_NODE = 2
FOLDER_PREFIX = "espalier-slurm-"
# What is started ends with the tests, even when these are killed: Snakemake without a Slurm would wait for ever.
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Without cgroups memory is sampled, every second. `config_overrides` lets a node declare more than the machine has.
# `cred_expire` is also how long a job of a lost node waits before it starts again.
SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CryptoType=crypto/munge
MpiDefault=none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={controller_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=10
InactiveLimit=0
KillWait=2
MinJobAge=7200
{nodes}
PartitionName=cpu Nodes={names} Default=YES MaxTime=1440 State=UP
PartitionName=gpu Nodes={names} Default=NO MaxTime=1440 State=UP
"""
NODE_LINE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=64000 Gres=gpu:{gpus} "
    "State=UNKNOWN"
)
# The plugin falls back to sacct when the controller does not answer; without accounting sacct fails at once, and jobs
# would be forgotten. It looks for it with `which`.
WHICH = """#!/bin/sh
[ "$1" = sacct ] && exit 1
exec /usr/bin/which "$@"
"""


class UnavailableError(Exception):
    """Slurm cannot be started here; the message says why."""


def ensure_installed() -> None:
    """Install Slurm from the distribution's packages where it is missing.

    Raises:
        UnavailableError: Unless this is root on a machine without a Slurm of its own, and the packages can be had.
    """
    if os.geteuid() != 0:
        raise UnavailableError("needs root, to install Slurm's packages and to start its daemons")
    _remove_stale_links()
    if any((SYSTEM_FOLDER / name).exists() for name in CONFIGURATION):
        raise UnavailableError(f"{SYSTEM_FOLDER} holds a configuration already; this machine may belong to a cluster")
    try:
        socket.getaddrinfo(socket.gethostname(), None)
    except OSError:
        raise UnavailableError("the name of this machine does not resolve; add it to /etc/hosts") from None
    if not _missing():
        return
    if shutil.which("apt-get") is None:
        raise UnavailableError(f"{', '.join(_missing())} missing, and no apt-get to install {' '.join(PACKAGES)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES]
    for command in (install, ["apt-get", "update"], install):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        if not _missing():
            return
    raise UnavailableError(f"apt-get could not install {' '.join(PACKAGES)}: {done.stderr.strip()[-200:]}")


def _remove_stale_links() -> None:
    """Remove what tests that were killed could not."""
    for name in CONFIGURATION:
        link = SYSTEM_FOLDER / name
        if link.is_symlink() and link.readlink().parent.name.startswith(FOLDER_PREFIX):
            owner = link.readlink().parent / "owner"
            if not owner.is_file() or not Path(f"/proc/{owner.read_text()}").exists():
                link.unlink()


def _missing() -> list[str]:
    return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]


class Cluster:
    """Two nodes, `n1` and `n2`, in the partitions `cpu` and `gpu`."""

    def __init__(self) -> None:
        # munge wants a folder that everyone may enter, which pytest's are not.
        self.folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        self.folder.chmod(0o755)
        (self.folder / "owner").write_text(str(os.getpid()), encoding="utf-8")
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._links: list[Path] = []
        self._made_system_folder = False

    @property
    def environment(self) -> dict[str, str]:
        """Environment to start Snakemake in."""
        path = f"{self.folder}/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def start(self) -> None:
        """Start everything and wait until both nodes are idle."""
        self._write_configuration()
        key, munge = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        log, seed, pid = (self.folder / f"munged.{suffix}" for suffix in ("log", "seed", "pid"))
        self._spawn(
            "munged", "--foreground", f"--key-file={key}", f"--socket={munge}", f"--log-file={log}",
            f"--seed-file={seed}", f"--pid-file={pid}",
        )  # fmt: skip
        wait_until(lambda: self._succeeds("munge", "-S", str(munge), "-n"), "munge answers", 120)
        self._spawn("slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_until(self._all_idle, "both nodes are idle", 300)

    def start_node(self, node: str) -> None:
        """Start the daemon of one node."""
        self._spawn("slurmd", "-D", "-N", node, name=node)

    def lose_node(self, node: str) -> list[int]:
        """Kill a node's daemon and everything that its jobs run, as a power cut would; returns the jobs' ids."""
        jobs = [int(job) for job in self.ask("squeue", "--noheader", "-w", node, "-t", "RUNNING", "-o", "%A").split()]
        doomed = [pid for job in jobs for step in _step_daemons(job) for pid in (step, *_descendants(step))]
        self._daemons[node].kill()
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._daemons.pop(node).wait()
        return jobs

    def ask(self, *command: str) -> str:
        """Run a Slurm command and return what it prints."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )  # fmt: skip
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """List all jobs since the start, finished ones included."""
        lines = self.ask("scontrol", "show", "job", "--oneliner").splitlines()
        return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines if "JobId=" in line]

    def node_state(self, node: str) -> str:
        """Return what Slurm takes a node for, such as IDLE, MIXED or DOWN+NOT_RESPONDING."""
        return self.ask("scontrol", "show", "node", node, "--oneliner").partition(" State=")[2].split(" ", 1)[0]

    def stop(self) -> None:
        """Cancel what runs, stop the daemons, remove our configuration and folder."""
        if "slurmctld" in self._daemons:
            self.ask("scancel", "--user=root")
            wait_until(lambda: not self.ask("squeue", "--noheader").strip(), None, 20)
        for daemon in reversed(self._daemons.values()):
            _end(daemon)
        self._daemons.clear()
        for link in self._links:
            link.unlink()
        if self._made_system_folder:
            SYSTEM_FOLDER.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        """Return the last lines of every daemon's log, for messages."""
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(self.folder.glob("*.log")))

    def _write_configuration(self) -> None:
        """Write into our folder; link it to the default place.

        The plugin drops SLURM_CONF before it starts a job's step, so the daemons of root are found only there.
        """
        host = socket.gethostname().split(".")[0]
        controller_port, *ports = _free_ports(1 + len(NODES))
        lines = [
            NODE_LINE.format(name=name, host=host, port=port, gpus=GPUS_PER_NODE)
            for name, port in zip(NODES, ports, strict=True)
        ]
        for name in ("state", "bin", "devices", *(f"spool-{node}" for node in NODES)):
            (self.folder / name).mkdir()
        slurm_conf = SLURM_CONF.format(
            host=host, folder=self.folder, controller_port=controller_port, nodes="\n".join(lines),
            names=",".join(NODES),
        )  # fmt: skip
        (self.folder / "slurm.conf").write_text(slurm_conf, encoding="utf-8")
        (self.folder / "gres.conf").write_text("\n".join(self._fake_gpus()) + "\n", encoding="utf-8")
        (self.folder / "bin/which").write_text(WHICH, encoding="utf-8")
        (self.folder / "bin/which").chmod(0o755)
        if not SYSTEM_FOLDER.exists():
            SYSTEM_FOLDER.mkdir()
            self._made_system_folder = True
        for name in CONFIGURATION:
            (SYSTEM_FOLDER / name).symlink_to(self.folder / name)
            self._links.append(SYSTEM_FOLDER / name)

    def _fake_gpus(self) -> Iterable[str]:
        """Slurm wants one device file for each GPU; links to /dev/null will do."""
        for node in NODES:
            for number in range(GPUS_PER_NODE):
                device = self.folder / f"devices/{node}-gpu{number}"
                device.symlink_to("/dev/null")
                yield f"NodeName={node} Name=gpu File={device}"

    def _spawn(self, *command: str, name: str | None = None) -> None:
        name = name or command[0]
        program = shutil.which(command[0], path=SEARCH_PATH)
        assert program is not None
        with (self.folder / f"{name}.out.log").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [*DIES_WITH_US, program, *command[1:]],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def _succeeds(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, check=False).returncode == 0

    def _all_idle(self) -> bool:
        return sorted(self.ask("sinfo", "--noheader", "-N", "-t", "idle", "-p", "cpu", "-o", "%N").split()) == [*NODES]


def wait_until(condition: Callable[[], bool], what: str | None, timeout_s: float) -> None:
    """Poll until a condition holds.

    Raises:
        TimeoutError: If it does not in time and `what` names it.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            if what is None:
                return
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()


def _step_daemons(job: int) -> list[int]:
    """Find the processes in which Slurm runs the steps of one job: they carry its id in their title."""
    title = f"slurmstepd: [{job}."
    return [pid for pid, line in _command_lines() if line.startswith(title)]


def _command_lines() -> Iterable[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                yield int(entry.name), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # ended meanwhile
                continue


def _descendants(pid: int) -> Sequence[int]:
    try:
        files = list(Path(f"/proc/{pid}/task").glob("*/children"))
        children = [int(child) for file in files for child in file.read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *_descendants(child))]
