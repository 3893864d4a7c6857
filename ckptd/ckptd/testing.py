"""A cluster of real `ckptd` processes on loopback, for tests and programs that need one for a while.

    from ckpt_client import Table
    from ckptd.testing import LocalCluster

    with LocalCluster(nodes=3) as cluster:
        table = Table("state", 100, 1024, 32, address=cluster.addresses())
        table.Write("k", "v")
        cluster.kill(cluster.active_node("state"))
        assert table.Read(["k"]) == b"v"

Entering waits until the nodes serve as one cluster, leaving stops every process and
removes its directory. The daemons end, too, when this process ends in any other way.
Nothing here knows the client library: it asks the daemons with DESCRIBE, as any program
may.
"""

import atexit
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ckpt_protocol.answers import decode_answer
from ckpt_protocol.codec import pack_body
from ckpt_protocol.codes import OK, code_name
from ckpt_protocol.framing import Frame, FrameDecoder, FrameError, encode_frame
from ckpt_protocol.greeting import NONCE_BYTES, ROLE_OPERATOR, Identity, Opener, Refused
from ckpt_protocol.messages import Kind

# A port below Linux's ephemeral range (from 32768): one inside it may be taken by
# somebody's outgoing connection while its node is down, and a peer that dials it may
# even connect to itself.
PORT_MIN: Final = 15_000
PORT_MAX: Final = 32_000
PORT_ATTEMPTS: Final = 1_000
POLL_SECONDS: Final = 0.01
ASK_SECONDS: Final = 1.0
DIRECTORY_PREFIX: Final = "ckptd-"
SHORT_DIRECTORY: Final = "/tmp"
SOCKET_PATH_BYTES_MAX: Final = 103
"""What macOS takes; Linux takes four more."""

SOCKET_NAME_BYTES_MAX: Final = 24
"""Room in a cluster's directory for the names of sockets, a test's own among them."""

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 30.0
"""A node that leaves waits for a peer, and for the hand-over to it, for `leave_ms` each."""

LOG_TAIL_BYTES: Final = 2_000

LETTERS_OF_NODES: Final = 22
"""The rest of the alphabet is for witnesses; in a larger cluster nodes have numbers."""

WITNESS_IDS: Final = "wxyz"


class ClusterError(Exception):
    """The cluster did not become what was asked within the time; the text says what it is instead."""


class NodeEnded(ClusterError):
    """A daemon that should run has ended by itself; the text is the end of its log."""


class HeldPort:
    """A port of 127.0.0.1, for TCP and UDP, that nobody else who draws one gets until `close()`.

    Its `number` is odd. The even port below it is bound as long as it is held, by a socket
    that nothing is done with: so the kernel keeps two processes from drawing one port, also
    while no daemon listens on it.
    """

    def __init__(self) -> None:
        """Raises: ClusterError where there is none."""
        for _ in range(PORT_ATTEMPTS):
            guarding = random.randrange(PORT_MIN, PORT_MAX, 2)
            guard = socket.socket()
            try:
                guard.bind(("127.0.0.1", guarding))
                with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
                    tcp.bind(("127.0.0.1", guarding + 1))
                    udp.bind(("127.0.0.1", guarding + 1))
            except OSError:
                guard.close()
                continue
            self.number = guarding + 1
            self.close = weakref.finalize(self, guard.close)
            return
        raise ClusterError(f"no port of 127.0.0.1 between {PORT_MIN} and {PORT_MAX} is free")

    def __str__(self) -> str:
        return str(self.number)


def _choose_directory() -> Path:
    """A name for a cluster's directory; in /tmp where the sockets' paths in TMPDIR would be too long."""
    name = DIRECTORY_PREFIX + secrets.token_hex(4)
    directory = Path(tempfile.gettempdir(), name)
    too_long = len(os.fsencode(directory)) + 1 + SOCKET_NAME_BYTES_MAX > SOCKET_PATH_BYTES_MAX
    return Path(SHORT_DIRECTORY, name) if too_long else directory


def describe(path: str | Path, what: str, cluster: str = "", key: str = "") -> Any:
    """What the daemon behind a unix socket answers to DESCRIBE: `what` is "cluster" or "checkpoints".

    Raises: OSError when nobody answers, ClusterError when the answer is a refusal.
    """
    identity = Identity(cluster=cluster, key=key.encode())
    opener = Opener(identity, ROLE_OPERATOR, os.urandom(NONCE_BYTES))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ASK_SECONDS)
        connection.connect(str(path))
        decoder = FrameDecoder()
        connection.sendall(opener.hello())
        try:
            _, proof = opener.receive(_receive(connection, decoder))
            connection.sendall(proof + encode_frame(Kind.DESCRIBE, 1, 0, 1, pack_body([what])))
            code, payload, _, text = decode_answer(_receive(connection, decoder).body)
        except (Refused, FrameError) as error:
            raise ClusterError(f"{path}: {error}") from error
    if code != OK:
        raise ClusterError(f"{path}: {code_name(code)} {text}")
    return payload


def _receive(connection: socket.socket, decoder: FrameDecoder) -> Frame:
    while True:
        chunk = connection.recv(65536)
        if not chunk:
            raise ConnectionResetError("the daemon closed the connection")
        frames = decoder.feed(chunk)
        if frames:
            return frames[0]


class LocalCluster:
    """Nodes `a`, `b`, `c`, …, each a `ckptd` process on 127.0.0.1 with a unix socket of its own.

    `nodes`: how many hold data. `witnesses`: how many more vote only; they are called `w`, `x`, `y`, `z`.
    `arbiter`: its name where it is not to go by the number of voters. `flags`: further flags of
    every daemon (`("--replicas", "2")`, or what an arbiter needs: `("--etcd-endpoints", url)`,
    `("--on-silent-peer", "block")`). `key`: the cluster's key. `cores`: the cores that the nodes
    are pinned to, in turn. A method's `node` is a node's index or its name, a witness's is its name.
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
        """Those that hold data."""

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
        """A pipe. Its end that is read is every daemon's standard input, the other one is held here alone:
        the daemons see its end when this process ends, by whatever signal."""

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
        """It is there from its first use, or from entering, until leaving."""
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
        """Kill what still runs, all at once; remove the directory, give back the ports. Again: no harm."""
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

    def node_id(self, node: int | str) -> str:
        """A node's name. Raises: ClusterError where there is no such node."""
        if isinstance(node, int) and -len(self.node_ids) <= node < len(self.node_ids):
            return self.node_ids[node]
        if node in self.all_ids:
            return str(node)
        raise ClusterError(f"there is no node {node!r} in this cluster of {', '.join(self.all_ids)}")

    @property
    def all_ids(self) -> tuple[str, ...]:
        """Those that hold data, then the witnesses."""
        return (*self.node_ids, *self.witness_ids)

    def socket_path(self, node: int | str = 0) -> Path:
        """A node's unix socket."""
        return self.directory / f"{self.node_id(node)}.sock"

    def address(self, node: int | str = 0, scheme: str = "unix") -> str:
        """A node's URL for clients: of its unix socket, or with `scheme` "tcp" or "udp"."""
        if scheme == "unix":
            return f"unix://{self.socket_path(node)}"
        return f"{scheme}://{self.listens_at(node)}"

    def state_path(self, node: int | str) -> Path:
        """A node's state directory."""
        return self.directory / f"{self.node_id(node)}.state"

    def listens_at(self, node: int | str) -> str:
        """Where a node listens for the others, as host:port."""
        return f"127.0.0.1:{self._ports[self.node_id(node)].number}"

    def addresses(self, first: int | str = 0) -> str:
        """The URLs of all nodes with data from `first` on, for a client that survives a node's loss."""
        node_id = self.node_id(first)
        if node_id in self.witness_ids:
            raise ClusterError(f"{node_id} is a witness: it serves no clients")
        start = self.node_ids.index(node_id)
        return ",".join(self.address(n) for n in self.node_ids[start:] + self.node_ids[:start])

    # -- processes

    @property
    def running(self) -> tuple[str, ...]:
        """The nodes with data whose processes run (or are paused)."""
        return tuple(n for n in self.node_ids if self._runs(n))

    @property
    def running_witnesses(self) -> tuple[str, ...]:
        """The witnesses whose processes run (or are paused)."""
        return tuple(n for n in self.witness_ids if self._runs(n))

    def _runs(self, node_id: str) -> bool:
        return node_id in self._processes and self._processes[node_id].poll() is None

    def pid(self, node: int | str) -> int:
        """The process id of a node that was started."""
        return self._process(node).pid

    def _process(self, node: int | str) -> subprocess.Popen[bytes]:
        node_id = self.node_id(node)
        if node_id not in self._processes:
            raise ClusterError(f"node {node_id} has not been started")
        return self._processes[node_id]

    def command(self, node: int | str) -> list[str]:
        """The command that starts a node."""
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

    def start(self, node: int | str, *flags: str) -> None:
        """Start a node that does not run, with further `flags`; `wait_serving` waits until it has joined."""
        node_id = self.node_id(node)
        if self._runs(node_id):
            raise ClusterError(f"node {node_id} runs already")
        if not self._entered or self._lifeline is None:
            raise ClusterError("the cluster is not entered: its nodes start with the block")
        # Settings of a daemon that the surrounding shell has are not meant for these.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("CKPTD_DAEMON_")}
        if self._key:
            # By environment: a command line is for everybody to read.
            environment["CKPTD_DAEMON_KEY"] = self._key
        with self.log_path(node_id).open("ab") as log:
            process = subprocess.Popen(
                [*self.command(node_id), "--end-with-stdin", *flags],
                stdin=self._lifeline[0],
                stdout=log,
                stderr=log,
                env=environment,
                # Linux wakes a stopped group of processes when the last parent outside of it is gone:
                # a node that was paused then sees the end of the pipe, too.
                process_group=0,
            )
        self._processes[node_id] = process
        if self._cores and hasattr(os, "sched_setaffinity"):
            core = self._cores[self.all_ids.index(node_id) % len(self._cores)]
            os.sched_setaffinity(process.pid, {core})

    def kill(self, node: int | str) -> None:
        """SIGKILL: the process ends at once, as in a crash."""
        process = self._process(node)
        process.kill()
        process.wait()

    def leave(self, node: int | str) -> int:
        """SIGTERM: the node hands over, leaves and ends; returns its exit status.

        The last node that holds something waits for a peer to come back: start one meanwhile.
        """
        self.begin_leave(node)
        return self.wait_ended(node)

    def begin_leave(self, node: int | str) -> subprocess.Popen[bytes]:
        """SIGTERM, without waiting for the end of the process that is returned."""
        process = self._process(node)
        process.terminate()
        return process

    def wait_ended(self, node: int | str) -> int:
        """Wait until a node that was told to leave has ended; its exit status."""
        try:
            return self._process(node).wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise ClusterError(f"node {self.node_id(node)} did not leave: {self.log_tail(node)}") from None

    def pause(self, node: int | str) -> None:
        """SIGSTOP: the process stands still, as a frozen virtual machine does; it does when this returns."""
        pid = self.pid(node)
        os.kill(pid, signal.SIGSTOP)
        if hasattr(os, "waitid"):  # (Not in every Python on macOS.)
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self, node: int | str) -> None:
        """SIGCONT: a paused process goes on."""
        os.kill(self.pid(node), signal.SIGCONT)

    def log_path(self, node: int | str) -> Path:
        """Where what a node says goes, over all its starts."""
        return self.directory / f"{self.node_id(node)}.log"

    def log_tail(self, node: int | str) -> str:
        """The end of what a node has said."""
        self._process(node)
        return self.log_path(node).read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()

    # -- what the nodes say

    def describe(self, what: str = "cluster", node: int | str = 0, cluster: str | None = None) -> Any:
        """A node's answer to DESCRIBE, `cluster` being its cluster's name. Raises: OSError, ClusterError."""
        return describe(self.socket_path(node), what, self.name if cluster is None else cluster, self._key)

    def checkpoint(self, name: str, node: int | str | None = None) -> list[Any]:
        """What a node (the first that runs and knows it) says of a checkpoint.

        [name, creation id, attributes, active or nil, [[node, in sync], …], opens, unlinked].
        Raises: ClusterError when there is none of that name; OSError when nobody answers.
        """
        fault: OSError | ClusterError = ClusterError("no node runs")
        for asked in self.running if node is None else (node,):
            try:
                for row in self.describe("checkpoints", asked):
                    if row[0] == name.encode() and not row[6]:
                        return list(row)
                fault = ClusterError(f"there is no checkpoint {name!r}")
            except (OSError, ClusterError) as error:
                fault = error
        raise fault

    def active_node(self, name: str) -> str | None:
        """The node that holds a checkpoint's active replica."""
        active = self.checkpoint(name)[3]
        return None if active is None else str(active)

    def in_sync_nodes(self, name: str) -> tuple[str, ...]:
        """The nodes that hold an in-sync replica of a checkpoint: those that serve, and say so themselves.

        For a while the others say it of a node that was killed, also after it has been started again.
        """
        told = (node for node, in_sync in self.checkpoint(name)[4] if in_sync and self._runs(node))
        return tuple(sorted(node for node in told if self._says_in_sync(node, name)))

    def _says_in_sync(self, node_id: str, name: str) -> bool:
        try:
            # In this order: whoever serves has the directory of the view that its start belongs to.
            serving = self.describe("cluster", node_id)["serving"]
            return bool(serving) and [node_id, True] in self.checkpoint(name, node_id)[4]
        except (OSError, ClusterError):
            return False

    # -- waiting

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
        """Ask again and again until `condition` holds; nobody answering counts as not yet.

        Raises: ClusterError after `seconds`; NodeEnded at once.
        """
        deadline = time.monotonic() + seconds
        reason = "it does not hold"
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
        """Until every running node with data is in one view with exactly the others that run, and serves.

        And until each sees that every running witness votes: one that started on an empty
        disk does not before a view names it.
        """
        expected, witnesses = self.running, self.running_witnesses

        def serving() -> bool:
            for node_id in (*expected, *witnesses):
                if not self._runs(node_id):
                    raise NodeEnded(f"node {node_id} ended: {self.log_tail(node_id)}")
            for node_id in expected:
                view = self.describe("cluster", node_id)
                members = tuple(sorted(member[0] for member in view["members"]))
                if not view["serving"] or members != tuple(sorted(expected)):
                    raise ClusterError(f"{node_id} sees {members}, {view['waiting_for'] or 'serving'}")
                if not set(witnesses) <= set(view["voting_witnesses"]):
                    raise ClusterError(f"for {node_id} only {view['voting_witnesses']} of {witnesses} vote")
            return True

        if not expected:
            raise NodeEnded("no node runs: " + "; ".join(self.log_tail(n) for n in self._processes))
        self.wait_until(serving, f"nodes {', '.join(expected)} serve as one cluster", seconds)

    def wait_in_sync(self, name: str, nodes: Sequence[str] | int, seconds: float = START_SECONDS) -> None:
        """Until a checkpoint has in-sync replicas on `nodes` (all of them, or that many).

        What a node held before it was killed does not count once it is started again.
        """
        if not isinstance(nodes, int):
            nodes = [self.node_id(node) for node in nodes]

        def in_sync() -> bool:
            now = self.in_sync_nodes(name)
            return len(now) >= nodes if isinstance(nodes, int) else set(nodes) <= set(now)

        self.wait_until(in_sync, f"{name} in sync on {nodes}", seconds)
