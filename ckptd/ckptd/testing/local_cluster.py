"""A cluster of real `ckptd` processes: start, kill, pause and ask its nodes."""

import atexit
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, overload

from ckpt_protocol.descriptions import CheckpointDescription, ClusterDescription
from ckptd.testing.describe_node import describe
from ckptd.testing.errors import ClusterError, NodeEnded
from ckptd.testing.held_port import HeldPort

POLL_SECONDS: Final = 0.01
LOG_TAIL_CHARACTERS: Final = 2_000
DIRECTORY_PREFIX: Final = "ckptd-"
SHORT_DIRECTORY: Final = "/tmp"
SOCKET_PATH_BYTES_MAX: Final = 103
"""The limit of macOS; Linux allows four bytes more."""

SOCKET_NAME_BYTES_MAX: Final = 24
"""The longest name of a socket in a cluster's directory, including sockets that a test makes itself."""

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
"""A leaving node waits up to `leave_ms` for a peer, and as long again for the hand-over to it."""

LETTERS_OF_NODES: Final = 22
"""The letters after these are for witnesses. In a larger cluster, nodes have numbers instead."""

WITNESS_IDS: Final = "wxyz"


def _choose_directory() -> Path:
    """Return a path for a cluster's directory: in TMPDIR, or in /tmp if socket paths would be too long."""
    name = DIRECTORY_PREFIX + secrets.token_hex(4)
    directory = Path(tempfile.gettempdir(), name)
    too_long = len(os.fsencode(directory)) + 1 + SOCKET_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX
    return Path(SHORT_DIRECTORY, name) if too_long else directory


class LocalCluster:
    """Nodes `a`, `b`, `c`, …, each a `ckptd` process on 127.0.0.1 with a unix socket of its own.

    * `nodes`: how many nodes hold data.
    * `witnesses`: how many more nodes only vote; they are called `w`, `x`, `y`, `z`.
    * `arbiter`: the arbiter's name; by default it depends on the number of voters.
    * `flags`: more flags for every daemon: `("--replicas", "2")`, or what an arbiter needs, such as
      `("--etcd-endpoints", url)` or `("--on-silent-peer", "block")`.
    * `key`: the cluster's key.
    * `cores`: the CPU cores that the nodes are pinned to, in turn.

    The argument `node` of a method is the index or the name of a node, or the name of a witness. What
    `active_node` returns may be passed on; if there is no active replica, that is a ClusterError.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        witnesses: int = 0,
        arbiter: str = "",
        flags: Sequence[str] = (),
        name: str = "local",
        key: str = "",
        cores: Sequence[int] = (),
    ) -> None:
        letters = nodes <= LETTERS_OF_NODES
        self.node_ids: Final = tuple(chr(ord("a") + i) if letters else f"n{i}" for i in range(nodes))
        """The nodes that hold data."""

        self.witness_ids: Final = tuple(WITNESS_IDS[:witnesses])
        if len(self.witness_ids) != witnesses:
            raise ClusterError(f"a cluster has at most {len(WITNESS_IDS)} witnesses")
        self.name: Final = name
        self._directory: Final = _choose_directory()
        self._entered = self._closed = False
        self._arbiter = arbiter
        self._flags = tuple(flags)
        self._key = key
        self._cores = tuple(cores)
        self._ports = {node_id: HeldPort() for node_id in self.all_ids}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lifeline: tuple[int, int] | None = None
        """A pipe. Its read end is every daemon's standard input, and only this process has its write end. So
        the daemons see end of file when this process ends, whatever the signal."""

    def __enter__(self) -> Self:
        self._entered = True
        try:
            self._prepare()
            for node_id in self.all_ids:
                self.start(node_id)
            self.wait_serving()
        except BaseException:
            self.close()
            raise
        return self

    @property
    def directory(self) -> Path:
        """The cluster's directory. It exists from its first use, or from entering, until leaving."""
        if not self._closed:
            self._prepare()
        return self._directory

    def _prepare(self) -> None:
        if self._lifeline is None:
            self._lifeline = os.pipe()
            self._closed = False
            atexit.register(self.close)
            self._directory.mkdir(mode=0o700)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill all processes at once, remove the directory and release the ports. May be repeated."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._processes.clear()
        for end in self._lifeline or ():
            os.close(end)
        self._lifeline = None
        for port in self._ports.values():
            port.close()
        shutil.rmtree(self._directory, ignore_errors=True)
        self._entered, self._closed = False, True
        atexit.unregister(self.close)

    # -- addresses

    def node_id(self, node: int | str | None) -> str:
        """Return a node's name. Raises: ClusterError if there is no such node."""
        if isinstance(node, int) and -len(self.node_ids) <= node < len(self.node_ids):
            return self.node_ids[node]
        if node in self.all_ids:
            return str(node)
        raise ClusterError(f"there is no node {node!r} in this cluster of {', '.join(self.all_ids)}")

    @property
    def all_ids(self) -> tuple[str, ...]:
        """The nodes that hold data, then the witnesses."""
        return (*self.node_ids, *self.witness_ids)

    def socket_path(self, node: int | str = 0) -> Path:
        """Return the path of a node's unix socket."""
        return self.directory / f"{self.node_id(node)}.sock"

    def address(self, node: int | str = 0, scheme: str = "unix") -> str:
        """Return a node's URL for clients: of its unix socket, or with `scheme` "tcp" or "udp"."""
        if scheme == "unix":
            return f"unix://{self.socket_path(node)}"
        return f"{scheme}://{self.listens_at(node)}"

    def state_path(self, node: int | str) -> Path:
        """Return a node's state directory."""
        return self.directory / f"{self.node_id(node)}.state"

    def listens_at(self, node: int | str) -> str:
        """Return where a node listens for the others, as host:port."""
        return f"127.0.0.1:{self._ports[self.node_id(node)].number}"

    def addresses(self, first: int | str = 0) -> str:
        """Return the URLs of all nodes with data, `first` first, for a client that survives a node's loss."""
        node_id = self.node_id(first)
        if node_id in self.witness_ids:
            raise ClusterError(f"{node_id} is a witness: it serves no clients")
        start = self.node_ids.index(node_id)
        return ",".join(self.address(n) for n in self.node_ids[start:] + self.node_ids[:start])

    # -- processes

    @property
    def running(self) -> tuple[str, ...]:
        """The nodes with data whose processes are running (or paused)."""
        return tuple(n for n in self.node_ids if self._runs(n))

    @property
    def running_witnesses(self) -> tuple[str, ...]:
        """The witnesses whose processes are running (or paused)."""
        return tuple(n for n in self.witness_ids if self._runs(n))

    def _runs(self, node_id: str) -> bool:
        return node_id in self._processes and self._processes[node_id].poll() is None

    def pid(self, node: int | str | None) -> int:
        """Return the process id of a node that was started."""
        return self._process(node).pid

    def _process(self, node: int | str | None) -> subprocess.Popen[bytes]:
        node_id = self.node_id(node)
        if node_id not in self._processes:
            raise ClusterError(f"node {node_id} has not been started")
        return self._processes[node_id]

    def command(self, node: int | str) -> list[str]:
        """Return the command that starts a node."""
        node_id = self.node_id(node)
        peers = ",".join(f"{n}={self.listens_at(n)}" for n in self.all_ids if n != node_id)
        command = [sys.executable, "-m", "ckptd", "--node-id", node_id, "--cluster", self.name]
        command += ["--listen", self.listens_at(node_id)]
        command += ["--peers", peers] if peers else []
        command += ["--socket", str(self.socket_path(node_id))]
        command += ["--state-dir", str(self.state_path(node_id))]
        command += ["--arbiter", self._arbiter] if self._arbiter else []
        command += ["--witnesses", ",".join(self.witness_ids)] if self.witness_ids else []
        command += ["--witness"] if node_id in self.witness_ids else []
        return [*command, *self._flags]

    def start(self, node: int | str | None, *flags: str) -> None:
        """Start a node that is not running, with more `flags`. `wait_serving` waits until it has joined."""
        node_id = self.node_id(node)
        if self._runs(node_id):
            raise ClusterError(f"node {node_id} is already running")
        if not self._entered or self._lifeline is None:
            raise ClusterError("enter the cluster first: that starts its nodes")
        # Settings for a daemon in our own environment are not meant for these daemons.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CKPTD_DAEMON_")}
        if self._key:
            # In the environment, because every user can read a command line.
            environment["CKPTD_DAEMON_KEY"] = self._key
        with self.log_path(node_id).open("ab") as log:
            process = subprocess.Popen(
                [*self.command(node_id), "--end-with-stdin", *flags],
                stdin=self._lifeline[0],
                stdout=log,
                stderr=log,
                env=environment,
                # Linux resumes a stopped process group when its last parent outside the group is gone.
                # So a paused node sees the end of the pipe as well.
                process_group=0,
            )
        self._processes[node_id] = process
        if self._cores and hasattr(os, "sched_setaffinity"):
            core = self._cores[self.all_ids.index(node_id) % len(self._cores)]
            os.sched_setaffinity(process.pid, {core})

    def kill(self, node: int | str | None) -> None:
        """Send SIGKILL: the process ends at once, as in a crash."""
        process = self._process(node)
        process.kill()
        process.wait()

    def leave(self, node: int | str | None) -> int:
        """Send SIGTERM: the node hands over, leaves and ends. Returns its exit status.

        The last node that holds data waits for a peer to come back; start one while it waits.
        """
        self.begin_leave(node)
        return self.wait_ended(node)

    def begin_leave(self, node: int | str | None) -> subprocess.Popen[bytes]:
        """Send SIGTERM, and return the process without waiting for its end."""
        process = self._process(node)
        process.terminate()
        return process

    def wait_ended(self, node: int | str | None) -> int:
        """Wait until a node that was asked to leave has ended; return its exit status."""
        try:
            return self._process(node).wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"node {self.node_id(node)} did not end: {self.log_tail(node)}") from None

    def pause(self, node: int | str | None) -> None:
        """Send SIGSTOP, and return once the process is stopped, as in a frozen virtual machine."""
        pid = self.pid(node)
        os.kill(pid, signal.SIGSTOP)
        if hasattr(os, "waitid"):  # (Not in every Python on macOS.)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self, node: int | str | None) -> None:
        """Send SIGCONT: a paused process continues."""
        os.kill(self.pid(node), signal.SIGCONT)

    def log_path(self, node: int | str | None) -> Path:
        """Return the file with a node's output, over all its starts."""
        return self.directory / f"{self.node_id(node)}.log"

    def log(self, node: int | str | None) -> str:
        """Return a node's output, over all its starts."""
        self._process(node)
        return self.log_path(node).read_text(errors="replace")

    def log_tail(self, node: int | str | None) -> str:
        """Return the end of a node's output: at most its last 2,000 characters."""
        return self.log(node)[-LOG_TAIL_CHARACTERS:].strip()

    # -- asking the nodes

    @overload
    def describe(
        self, what: Literal["cluster"] = "cluster", node: int | str = 0, cluster: str | None = None
    ) -> ClusterDescription: ...
    @overload
    def describe(
        self, what: Literal["checkpoints"], node: int | str = 0, cluster: str | None = None
    ) -> tuple[CheckpointDescription, ...]: ...
    def describe(
        self,
        what: Literal["cluster", "checkpoints"] = "cluster",
        node: int | str = 0,
        cluster: str | None = None,
    ) -> object:
        """Return what a node knows about its "cluster" or the "checkpoints".

        `cluster` is the name of the node's cluster. Raises: OSError; ClusterError.
        """
        return describe(self.socket_path(node), what, self.name if cluster is None else cluster, self._key)

    def checkpoint(self, name: str, node: int | str | None = None) -> CheckpointDescription:
        """Return a node's description of a checkpoint, by default of the first running node that knows it.

        Raises: ClusterError if there is no checkpoint of that name; OSError if no node answers.
        """
        fault: OSError | ClusterError = ClusterError("no node is running")
        for each in self.running if node is None else (node,):
            try:
                for described in self.describe("checkpoints", each):
                    if described.name == name.encode() and not described.unlinked:
                        return described
                fault = ClusterError(f"there is no checkpoint {name!r}")
            except (OSError, ClusterError) as error:
                fault = error
        raise fault

    def active_node(self, name: str) -> str | None:
        """Return the node with a checkpoint's active replica; None if there is none."""
        return self.checkpoint(name).active

    def in_sync_nodes(self, name: str) -> tuple[str, ...]:
        """Return the nodes that serve and report themselves that their replica of a checkpoint is in sync.

        The others' reports are not enough: for a while they still list a node that was killed, even after it
        was started again.
        """
        reported = (node for node in self.checkpoint(name).in_sync_nodes if self._runs(node))
        return tuple(sorted(node for node in reported if self._reports_in_sync(node, name)))

    def _reports_in_sync(self, node_id: str, name: str) -> bool:
        try:
            # In this order: a node that serves has the directory of the view that its incarnation is in.
            serving = self.describe("cluster", node_id).serving
            return serving and node_id in self.checkpoint(name, node_id).in_sync_nodes
        except (OSError, ClusterError):
            return False

    # -- waiting

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Call `condition` repeatedly until it holds. Raising OSError or ClusterError counts as not yet.

        Raises: ClusterError after `seconds`; NodeEnded at once.
        """
        deadline = time.monotonic() + seconds
        reason = "the condition is not met"
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except NodeEnded:
                raise
            except (OSError, ClusterError) as error:
                reason = str(error)
            time.sleep(POLL_SECONDS)
        raise ClusterError(f"not within {seconds:g} s: {what} ({reason})")

    def wait_serving(self, seconds: float = START_SECONDS) -> None:
        """Wait until all running nodes with data serve, in one view of exactly these nodes.

        Each also has to report that every running witness votes; a witness that started on an empty disk does
        not vote before a view names it.
        """
        expected, witnesses = self.running, self.running_witnesses

        def serving() -> bool:
            for node_id in (*expected, *witnesses):
                if not self._runs(node_id):
                    raise NodeEnded(f"node {node_id} ended: {self.log_tail(node_id)}")
            for node_id in expected:
                view = self.describe("cluster", node_id)
                members = tuple(sorted(member.node_id for member in view.members))
                if not view.serving or members != tuple(sorted(expected)):
                    raise ClusterError(f"{node_id} sees {members}: {view.waiting_for or 'serving'}")
                if not set(witnesses) <= set(view.voting_witnesses):
                    raise ClusterError(f"at {node_id} only {view.voting_witnesses} of {witnesses} vote")
            return True

        if not expected:
            raise NodeEnded("no node is running: " + "; ".join(self.log_tail(n) for n in self._processes))
        self.wait_until(serving, f"nodes {', '.join(expected)} serve as one cluster", seconds)

    def wait_in_sync(self, name: str, nodes: Sequence[str] | int, seconds: float = START_SECONDS) -> None:
        """Wait until a checkpoint has in-sync replicas on all of `nodes`, or on that many nodes.

        The replica that a node had before it was killed does not count once the node is started again.
        """
        if not isinstance(nodes, int):
            nodes = [self.node_id(node) for node in nodes]

        def in_sync() -> bool:
            now = self.in_sync_nodes(name)
            return len(now) >= nodes if isinstance(nodes, int) else set(nodes) <= set(now)

        self.wait_until(in_sync, f"{name} in sync on {nodes}", seconds)
