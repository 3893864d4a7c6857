"""What all parts of one node's core share: its identity, the time, and the effects that it asks for.

This module must not know checkpoints, views or clients: those know it.
"""

from typing import Final

from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.events import Effect, Log, SendClient, SendPeer
from ckptd.core.hub import NO_TRANSPORT, Transport
from ckptd.core.settings import Settings
from ckptd.core.stops_by_bugs import Stops
from ckptd.core.work_costs import KIB_SHIFT

_ACK: Final = Kind.ACK

GAP_HEARTBEATS: Final = 4
"""A node notices with every heartbeat that it serves. It did not serve if more have passed."""

NEVER_NS: Final = 2**63
"""A deadline that never comes."""


class Context:
    """Time and effects of the event that is being handled, and the node's status in its view.

    `lease_until_ns` and `sealed` decide whether this node may order updates and serve reads.
    """

    __slots__ = (
        "acks",
        "alarms",
        "cause",
        "closing",
        "counters",
        "deadline_ns",
        "effects",
        "epoch",
        "established_epoch",
        "feature_level",
        "full_nodes",
        "incarnation",
        "leaderless",
        "lease_until_ns",
        "newly_led",
        "newly_visible",
        "next_containment_log_ns",
        "node_id",
        "now_ns",
        "resident_bytes",
        "sealed",
        "served_at_ns",
        "settings",
        "stops",
        "transport",
        "unserved_ns",
        "wall_offset_ns",
        "work",
        "work_until",
    )

    def __init__(
        self,
        settings: Settings,
        incarnation: int,
        now_ns: int,
        wall_offset_ns: int,
        transport: Transport = NO_TRANSPORT,
    ) -> None:
        self.settings = settings
        self.transport = transport
        self.node_id = settings.node_id
        self.incarnation = incarnation
        self.now_ns = now_ns
        self.wall_offset_ns = wall_offset_ns
        self.epoch = 0
        self.sealed = True
        """Sealed: no view is installed yet, or this node knows a newer one, or it answered a collector."""
        self.lease_until_ns = 0
        self.served_at_ns = now_ns
        """When this node last noticed that it serves."""
        self.unserved_ns = 0
        """How long it did not serve, in all: it had no lease, or its process was paused."""
        self.established_epoch = 0
        self.feature_level = 0
        """The feature level of the installed view."""
        self.effects: list[Effect] = []
        self.cause: object = None
        """What is being handled (a frame, a request, a replica, an operation), for the node's last words."""
        self.stops = Stops()
        """The stops of nodes that this node knows of."""
        self.acks: dict[tuple[str, int], int] = {}
        self.newly_visible: dict[int, None] = {}
        """Tracked checkpoints in which this event made something visible."""
        self.leaderless: dict[int, None] = {}
        """Checkpoints, active here, that a program waits to lead and none leads."""
        self.newly_led: dict[int, None] = {}
        """Checkpoints in which this event changed who leads, or who waits to."""
        self.deadline_ns = now_ns
        self.next_containment_log_ns = now_ns
        """When `containment` may log again."""
        self.closing: dict[int, str] = {}
        """Links of clients that are closed after this event, and why."""
        self.alarms: dict[str, str] = {}
        """What an operator should see to, by name."""
        self.counters: dict[str, int] = {}
        """Counts of events; they only grow."""
        self.resident_bytes = 0
        """About how much memory this node's replicas use."""
        self.full_nodes: tuple[str, ...] = ()
        """Nodes whose replicas may use no more memory."""
        self.work = 0
        """The work done in this turn, in work units."""
        self.work_until = 0
        """The link that is served must stop when `work` reaches this."""

    @property
    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.now_ns + self.wall_offset_ns

    def serving(self) -> bool:
        """Return True if this node holds its view's lease now and its epoch is not sealed."""
        return self.now_ns < self.lease_until_ns and not self.sealed

    def note_serving(self) -> None:
        """Notice that this node serves, if it does, and add up the time in which it did not.

        A little of each gap counts as served. Otherwise nothing would ever be over at a node that is always
        late.
        """
        if not self.serving():
            return
        gap_ns, self.served_at_ns = self.now_ns - self.served_at_ns, self.now_ns
        unserved_ns = gap_ns - GAP_HEARTBEATS * self.settings.heartbeat_ns
        if unserved_ns > 0:
            self.unserved_ns += unserved_ns

    @property
    def is_view_established(self) -> bool:
        """Return True if every member has shown that it runs the view: no member served in it before that."""
        return self.established_epoch == self.epoch

    def wake_at(self, at_ns: int) -> None:
        """Ask for `TimeCame` no later than this."""
        if at_ns < self.deadline_ns:
            self.deadline_ns = at_ns

    def send_peer(self, node_id: str, data: bytes) -> None:
        self.effects.append(SendPeer(node_id, data))

    def send_client(self, link: int, data: bytes) -> None:
        self.work += len(data) >> KIB_SHIFT
        self.effects.append(SendClient(link, data))

    def log(self, text: str, level: str = "info") -> None:
        self.effects.append(Log(level, text))

    def count(self, counter: str, number: int = 1) -> None:
        """Add to a counter, for monitoring."""
        self.counters[counter] = self.counters.get(counter, 0) + number

    def raise_alarm(self, name: str, text: str, again: bool = False) -> None:
        """Raise an alarm, which lasts until `clear_alarm`: `ckptctl status` shows it, and one line is logged.

        With `again` a line is logged even if the alarm was raised before.
        """
        if again or name not in self.alarms:
            self.log(f"alarm {name}: {text}", "warning")
        self.alarms[name] = text

    def clear_alarm(self, name: str) -> None:
        """Clear an alarm, and log that it is over."""
        if name in self.alarms:
            del self.alarms[name]
            self.log(f"alarm {name} has ended")

    def flush_acks(self) -> None:
        """Acknowledge what this event staged: one ACK per checkpoint and node, since ACK is cumulative."""
        for (node_id, creation_id), seq in self.acks.items():
            self.effects.append(SendPeer(node_id, encode_frame(_ACK, creation_id, self.epoch, seq)))
        self.acks.clear()
