"""Impostors: a sender that forges heartbeats, and second daemons under the id of a running node.

The forger reaches every node with datagrams and knows every incarnation, but not the secrets that sign
heartbeats. A second daemon is a whole core with an incarnation of its own. It sends heartbeats, and every
node that asks back at the address of its node id refuses it. Neither may have any effect on the cluster, and
a second daemon must never serve.

Impostors also set a host's clock ahead now and then. If the state directory is lost after that, the next
start has a lower incarnation than one that the other nodes have met.
"""

from random import Random
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, decode_datagram
from ckpt_protocol.limits import INCARNATION_MAX
from ckpt_protocol.messages import Kind
from ckptd.core.events import (
    Effect,
    HeartbeatReceived,
    PeerTrouble,
    Persist,
    Persisted,
    SendHeartbeat,
    TimeCame,
)
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation, World

FIRST_START: Final = 10**6
"""Second daemons have incarnations from here on, above those of the nodes whose id they use."""

AHEAD: Final = 10**9
_CLOCKS_AHEAD: Final = 0.2
_SECOND_DAEMONS: Final = 0.02
_WAIT_NS: Final = (MILLISECOND_NS, 20 * MILLISECOND_NS, 100 * MILLISECOND_NS)
_DELAY_NS: Final = 2 * MILLISECOND_NS
_REPORT_NS: Final = SECOND_NS
"""How often a second daemon learns that another incarnation answers at its node's address."""


class SecondDaemon:
    """A second daemon with the id of a node. Its disk is empty, or a duplicate of the node's."""

    def __init__(self, impostors: "Impostors", host: Host, incarnation: int, record: bytes) -> None:
        self.impostors = impostors
        self.world = impostors.world
        self.node_id = host.node_id
        self.runs = True
        self.node = Node(host.settings, incarnation, record, self.world.now_ns, 0)
        self._arm()
        self._report_other_daemon()

    def _arm(self) -> None:
        self.world.at(max(self.node.deadline_ns, self.world.now_ns + MILLISECOND_NS), self._wake)

    def _wake(self) -> None:
        if self.runs:
            self._carry_out(self.node.handle(TimeCame(), self.world.now_ns))
            self._arm()

    def _report_other_daemon(self) -> None:
        if not self.runs:
            return
        for peer in self.node.settings.peers:
            text = f"node {self.node_id!r} is expected elsewhere, but another incarnation of it answers there"
            self._carry_out(self.node.handle(PeerTrouble(peer, codes.EXIST, text), self.world.now_ns))
        self.world.after(_REPORT_NS, self._report_other_daemon)

    def _carry_out(self, effects: list[Effect]) -> None:
        if self.node.serving(self.world.now_ns):
            raise Violation(
                "one node per node id", f"a second daemon with the id of node {self.node_id} serves"
            )
        for effect in effects:
            if isinstance(effect, SendHeartbeat):
                self.impostors.send(effect.node_id, decode_datagram(effect.data))
            elif isinstance(effect, Persist):
                number = effect.number
                self.world.after(_DELAY_NS, lambda number=number: self._persisted(number))  # type: ignore[misc]

    def _persisted(self, number: int) -> None:
        if self.runs:
            self._carry_out(self.node.handle(Persisted(number), self.world.now_ns))


class Impostors:
    """All impostors. They have their own random generator and act at times of their own."""

    def __init__(self, world: World, machines: dict[str, Host]) -> None:
        self.world = world
        self.machines = machines
        self.random = Random(f"impostors {world.options.seed}")
        self.on = False
        self.forged = 0
        self.second_daemons: list[SecondDaemon] = []

    def begin(self) -> None:
        """Start to act."""
        self.on = True
        self._later()

    def end(self) -> None:
        """Stop all of them."""
        self.on = False
        for second in self.second_daemons:
            second.runs = False

    def clock_ahead(self) -> int:
        """Draw how far the clock of a starting node is ahead, as its incarnation shows."""
        return AHEAD if self.on and self.random.random() < _CLOCKS_AHEAD else 0

    def send(self, node_id: str, frame: Frame) -> None:
        """Send a datagram to a node. None is lost, since none should matter."""
        host, event = self.machines[node_id], HeartbeatReceived(frame, authentic=False)
        self.world.after(self.random.randint(1, _DELAY_NS), lambda: host.deliver(event))

    def _later(self) -> None:
        wait_ns = self.random.choice(_WAIT_NS)
        self.world.after(self.random.randint(wait_ns // 2, wait_ns), self._act)

    def _act(self) -> None:
        if not self.on:
            return
        self._later()
        if self.random.random() < _SECOND_DAEMONS and self.world.options.arbiter != "etcd":
            self._start_second()
        else:
            self._forge()

    def _start_second(self) -> None:
        host = self.random.choice([host for host in self.machines.values() if not host.settings.witness])
        if not host.settings.peers:
            return  # (A node that is alone asks no other node, and none asks it.)
        record = host.disk.record if self.random.random() < 0.5 else b""
        self.world.say(f"fault: a second daemon with the id of node {host.node_id} starts")
        second = SecondDaemon(self, host, FIRST_START + len(self.second_daemons), record)
        self.second_daemons.append(second)

        def stop() -> None:
            second.runs = False
            self.world.say(f"the second daemon with the id of node {host.node_id} has ended")

        self.world.after(self.random.randint(SECOND_NS // 10, 3 * SECOND_NS), stop)

    def _forge(self) -> None:
        """Send a heartbeat of a known incarnation, or of an unknown one, that claims what would hurt most."""
        random, names = self.random, list(self.machines)
        if len(names) < 2:
            return
        receiver, claimed = random.sample(names, 2)
        met = self.machines[claimed].incarnation
        incarnation = random.choice((met, FIRST_START - 1, 2 * AHEAD + 1, INCARNATION_MAX))
        epoch, flags = random.choice((0, 1, 1000)), random.choice((0, 1, 2, 3, 4, 8))
        body = pack_body([claimed, incarnation, epoch, epoch, flags, [], names, 0, "ckptd", [], []])
        self.forged += 1
        self.send(receiver, Frame(Kind.HEARTBEAT, random.choice((1, 2**63 - 1)), epoch, 0, body))
