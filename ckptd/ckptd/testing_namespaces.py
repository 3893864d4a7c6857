"""A cluster of real `ckptd` processes, each in a network namespace of its own, whose network can be cut.

    with NetnsCluster(nodes=3) as cluster:
        table = Table("state", 100, 1024, 32, address=cluster.addresses())
        cluster.partition([cluster.active_node("state")])
        table.Write("k", "v")
        cluster.heal()

A bridge in one more namespace connects the nodes, so the machine's own network is not touched. Clients
connect by the nodes' unix sockets, which work because the file system is shared. It needs Linux, root, `ip`
and `iptables`.
"""

import atexit
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from ckptd.testing import ClusterError, LocalCluster

PORT: Final = 7300
"""The port of every node. All use the same one, as each has an address of its own."""

COMMAND_SECONDS: Final = 20.0
LINES_OF_BRIDGE: Final = ("link add br0 type bridge forward_delay 0", "link set br0 up")

_numbers = itertools.count()


def why_unavailable() -> str:
    """Return why network namespaces cannot be used here; "" if they can."""
    missing = [program for program in ("ip", "iptables", "iptables-restore") if shutil.which(program) is None]
    if missing:
        return f"network namespaces need {', '.join(missing)}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"ckptd-{os.getpid()}-probe"
    try:
        _run(["ip", "netns", "add", name])
        try:
            _run(["ip", "netns", "exec", name, "iptables-restore"], _rules(_loss(0.5, "udp")))
        finally:
            _run(["ip", "netns", "delete", name])
    except ClusterError as error:
        return f"network namespaces do not work here: {error}"
    return ""


def _run(command: Sequence[str], given: str = "") -> None:
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {done.stderr.strip()}")


def _rules(rules: Iterable[str]) -> str:
    """Return a whole filter table for `iptables-restore`, which replaces the previous one atomically."""
    return "\n".join(("*filter", ":INPUT ACCEPT", ":OUTPUT ACCEPT", *rules, "COMMIT", ""))


def _loss(share: float, protocol: str) -> list[str]:
    kind = "" if protocol == "all" else f"-p {protocol} "
    return [f"-A INPUT {kind}-i eth0 -m statistic --mode random --probability {share} -j DROP"]


class NetnsCluster(LocalCluster):
    """A `LocalCluster` with methods that cut the network between the nodes.

    Cuts add up until `heal`. A cut drops packets silently, as a pulled cable does. From outside, only `unix`
    addresses reach the nodes.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        witnesses: int = 0,
        arbiter: str = "",
        flags: Sequence[str] = (),
        name: str = "netns",
        key: str = "",
    ) -> None:
        super().__init__(nodes, witnesses=witnesses, arbiter=arbiter, flags=flags, name=name, key=key)
        self._prefix = f"ckptd-{os.getpid()}-{next(_numbers)}"
        self._made: list[str] = []
        self._cuts: set[tuple[str, str]] = set()
        """Cuts, as pairs (receiver, sender): the receiver gets no packets from the sender."""

        self._loss: list[str] = []

    def __enter__(self) -> Self:
        reason = why_unavailable()
        if reason:
            raise ClusterError(reason)
        atexit.register(self._remove_network)
        try:
            self._make_network()
        except BaseException:
            self.close()
            raise
        return super().__enter__()

    def close(self) -> None:
        """End the processes, then remove the namespaces."""
        super().close()
        self._remove_network()
        atexit.unregister(self._remove_network)

    # -- the network

    def namespace(self, node: int | str) -> str:
        """Return the name of a node's network namespace."""
        return f"{self._prefix}-{self.node_id(node)}"

    def has_namespace(self, name: str) -> bool:
        """Return True if a network namespace of that name exists."""
        return Path("/run/netns", name).exists()

    def ip(self, node: int | str) -> str:
        """Return a node's IP address. Only the other nodes can reach it."""
        return f"10.73.0.{self.all_ids.index(self.node_id(node)) + 1}"

    def listens_at(self, node: int | str) -> str:
        """Return where a node listens for the others, as host:port."""
        return f"{self.ip(node)}:{PORT}"

    def command(self, node: int | str) -> list[str]:
        """Return the command that starts a node in its namespace; the process of `ip` becomes the daemon."""
        return ["ip", "netns", "exec", self.namespace(node), *super().command(node)]

    def _make_network(self) -> None:
        hub = f"{self._prefix}-hub"
        for name in (hub, *(self.namespace(node_id) for node_id in self.all_ids)):
            _run(["ip", "netns", "add", name])
            self._made.append(name)
        _run(["ip", "-n", hub, "-batch", "-"], "\n".join(LINES_OF_BRIDGE))
        for node_id in self.all_ids:
            name = self.namespace(node_id)
            _run(
                ["ip", "-n", hub, "-batch", "-"],
                f"link add to-{node_id} type veth peer name eth0 netns {name}\n"
                f"link set to-{node_id} master br0\nlink set to-{node_id} up\n",
            )
            _run(
                ["ip", "-n", name, "-batch", "-"],
                f"link set lo up\naddress add {self.ip(node_id)}/24 dev eth0\nlink set eth0 up\n",
            )

    def _remove_network(self) -> None:
        while self._made:
            _run(["ip", "netns", "delete", self._made.pop()])

    # -- faults

    def cut_one_way(self, sender: int | str, receiver: int | str) -> None:
        """Drop all packets from `sender` to `receiver`, but none in the other direction."""
        self._add_cuts([(self.node_id(receiver), self.node_id(sender))])

    def cut(self, one: int | str, other: int | str) -> None:
        """Drop all packets between two nodes, in both directions."""
        first, second = self.node_id(one), self.node_id(other)
        self._add_cuts([(first, second), (second, first)])

    def partition(self, side: Iterable[int | str]) -> None:
        """Drop all packets between the nodes of `side` and all other nodes."""
        ours = {self.node_id(node) for node in side}
        self._add_cuts([(a, b) for a in self.all_ids for b in self.all_ids if (a in ours) != (b in ours)])

    def isolate(self, node: int | str) -> None:
        """Cut a node off from all others, as a host that has lost its power or its cable."""
        self.partition([node])

    def lossy(self, share: float, protocol: str = "all") -> None:
        """Have every node lose this share of the packets that arrive. `protocol`: "udp", "tcp" or "all"."""
        self._loss = _loss(share, protocol) if share else []
        self._apply(self.all_ids)

    def heal(self) -> None:
        """End all cuts and losses: every packet arrives again."""
        self._loss = []
        self._cuts.clear()
        self._apply(self.all_ids)

    def _add_cuts(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._cuts.update(pairs)
        self._apply(sorted({who for who, _ in pairs}))

    def _apply(self, node_ids: Iterable[str]) -> None:
        for node_id in node_ids:
            cuts = [f"-A INPUT -s {self.ip(b)} -j DROP" for a, b in sorted(self._cuts) if a == node_id]
            _run(
                ["ip", "netns", "exec", self.namespace(node_id), "iptables-restore"],
                _rules([*cuts, *self._loss]),
            )
