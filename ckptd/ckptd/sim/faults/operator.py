"""The operator: he checks the nodes now and then, and gives a command to one that waits.

* A sensible operator waits until a node has waited for long. He bootstraps a cluster without machines that
  are late only while no process has a view. He declares only machines dead that burnt and do not come back.
* A hasty operator does either as soon as a node accepts the command.

The answers to his commands are checked here; the oracles check the consequences. After the faults every
operator checks once, and sends `force-active` to a node that asks for it.
"""

from collections import Counter
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.messages import Kind, Verb
from ckpt_protocol.parse_answers import decode_answer
from ckptd.core.events import ClientConnected, ClientLost, ClientReceived
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.draw.limits import HASTY
from ckptd.sim.faults.faults import Faults
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import Violation

LAST_LINK: Final = 2**31
"""The number of the operator's last link, to any node. The links of his earlier commands have higher
numbers."""

ACTS_EVERY_NS: Final = 150 * MILLISECOND_NS
PATIENCE_GRACES: Final = 2
"""A sensible operator acts on what has lasted for this many graces."""

ANSWER_NS: Final = 2 * SECOND_NS
"""How long he reads answers."""


class Operator:
    """One operator."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.world = faults.world
        self.hosts = faults.hosts
        self.machines = faults.machines
        self.views = faults.oracles.views
        self.on = False
        self.counts: Counter[str] = Counter()
        """His commands, by verb and outcome."""

        self._waiting_since: dict[str, tuple[int, int]] = {}
        self._commands: dict[int, tuple[Host, int, str, str]] = {}
        self._last_link = LAST_LINK
        self._bootstrapped: set[str] = set()
        """The nodes that he gave the command to bootstrap."""

    def begin(self) -> None:
        """Start to act."""
        self.on = True
        self._next()

    def end(self) -> None:
        """Stop acting."""
        self.on = False

    def _next(self) -> None:
        self.world.after(self.world.about(ACTS_EVERY_NS), self._act)

    def _act(self) -> None:
        if not self.on:
            return
        self._next()
        for host in self.hosts.values():
            self._note_wait(host)
        hosts = [host for host in self.hosts.values() if host.node is not None and not host.paused]
        if not hosts:
            return
        host = self.world.random.choice(hosts)
        assert host.node is not None
        if self.world.options.operator == HASTY:
            self._act_in_haste(host, host.node)
        else:
            self._act_with_care(host, host.node)

    def _note_wait(self, host: Host) -> None:
        node, waiting = host.node, self._waiting_since.get(host.node_id)
        if node is None or not (node.reconfiguration.describe_wait() or self._unavailable(node)):
            self._waiting_since.pop(host.node_id, None)
        elif waiting is None or waiting[0] != host.incarnation:
            self._waiting_since[host.node_id] = (host.incarnation, self.world.now_ns)

    def _act_in_haste(self, host: Host, node: Node) -> None:
        others = [node_id for node_id in self.machines if node_id != host.node_id]
        if node.view is None and self.world.chance(0.5):
            if self._may_bootstrap(host):
                self.command(host, Verb.BOOTSTRAP)
        elif others:
            self.command(host, Verb.ACCEPT_LOSS, self.world.random.choice(others))

    def _act_with_care(self, host: Host, node: Node) -> None:
        waiting = self._waiting_since.get(host.node_id)
        patience_ns = PATIENCE_GRACES * self.world.options.grace_ns
        if waiting is None or self.world.now_ns - waiting[1] < patience_ns:
            return
        burnt = [node_id for node_id in self.faults.burnt if node_id != host.node_id]
        if "for a cold start" in node.reconfiguration.describe_wait():
            if all(other.view is None for other in self._nodes()) and self._may_bootstrap(host):
                self.command(host, Verb.BOOTSTRAP)
        elif burnt:
            self.command(host, Verb.ACCEPT_LOSS, self.world.random.choice(burnt))

    def _may_bootstrap(self, host: Host) -> bool:
        """Return False for a node that was bootstrapped and forgot it.

        It would use the same epoch again (ADR 12).
        """
        assert host.node is not None
        return not (host.node.liveness.own.amnesiac and host.node_id in self._bootstrapped)

    def _nodes(self) -> list[Node]:
        return [host.node for host in self.hosts.values() if host.node is not None]

    def _unavailable(self, node: Node) -> bool:
        return any(entry.last_in_sync for entry in node.directory.checkpoints.values())

    # -- commands and answers

    def command(self, host: Host, verb: str, name: str = "") -> None:
        """Send one command to one node."""
        self.world.say(f"operator command {verb} {name} to {host.node_id}")
        self._last_link += 1
        link, incarnation = self._last_link, host.incarnation
        self._commands[link] = (host, incarnation, verb, name)
        if verb == Verb.BOOTSTRAP:
            self._bootstrapped.add(host.node_id)
        frame = Frame(Kind.OPERATE, 1, 0, 0, pack_body([verb, name] if name else [verb]))
        host.deliver(ClientConnected(link))
        host.deliver(ClientReceived(link, [frame]))
        self.world.after(ANSWER_NS, lambda: self._disconnect(link))

    def _disconnect(self, link: int) -> None:
        host, incarnation, *_ = self._commands.pop(link)
        if host.node is not None and host.incarnation == incarnation:
            host.deliver(ClientLost(link))

    def on_answer(self, link: int, data: bytes) -> None:
        """Check a node's answer. Raises: Violation."""
        if link not in self._commands:
            return
        host, incarnation, verb, name = self._commands[link]
        for frame in FrameDecoder().feed(data):
            code, payload, _, text = decode_answer(frame.body)
            self.world.say(f"{host.node_id} answers {verb}: {payload if code == codes.OK else text}")
            self.counts[f"{verb} {'done' if code == codes.OK else 'refused'}"] += 1
            if verb == Verb.BOOTSTRAP and code != codes.OK:
                self._bootstrapped.discard(host.node_id)
            if code == codes.OK and host.node is not None and host.incarnation == incarnation:
                self._check_accepted_loss(host, host.node, verb, name)

    def _check_accepted_loss(self, host: Host, node: Node, verb: str, name: str) -> None:
        if verb == Verb.ACCEPT_LOSS:
            peer = node.liveness.peers[name]
            silent_ns = host.local_ns - peer.heard_ns - peer.pause_credit_ns
            if (
                silent_ns < host.settings.grace_ns
                and peer.incarnation > peer.dead_incarnation
                and not peer.left
            ):
                raise Violation(
                    "a node whose heartbeats arrive is not declared lost",
                    f"{host.node_id} declared {name} dead, although a heartbeat arrived "
                    f"{silent_ns / MILLISECOND_NS:.0f} ms ago",
                )
            self.views.on_declared_dead(host.node_id, name, peer.declared_dead_incarnation)

    # -- after the faults

    def act_once(self) -> None:
        """Read what the nodes wait for, and send `force-active` to one that asks for it."""
        for host in self.hosts.values():
            if host.node is not None and "the operator" in host.node.reconfiguration.describe_wait():
                self.world.say(f"operator command {Verb.FORCE_ACTIVE} to {host.node_id}")
                frame = Frame(Kind.OPERATE, 1, 0, 0, pack_body([Verb.FORCE_ACTIVE]))
                host.deliver(ClientConnected(LAST_LINK))
                host.deliver(ClientReceived(LAST_LINK, [frame]))
                host.deliver(ClientLost(LAST_LINK))
                return
        if self.world.options.operator and all(node.view is None for node in self._nodes()):
            self._bootstrap_one()

    def _bootstrap_one(self) -> None:
        """No node has a view, and too few vote for a cold start: bootstrap one of them."""
        for host in self.hosts.values():
            waiting = (
                host.node is not None and "for a cold start" in host.node.reconfiguration.describe_wait()
            )
            if waiting and self._may_bootstrap(host):
                self.command(host, Verb.BOOTSTRAP)
                return
