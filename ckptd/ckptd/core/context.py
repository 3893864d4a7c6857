"""What every part of one node's core shares: who it is, what time it is, what it asks for.

It must not know checkpoints, views or clients: those know it.
"""

from typing import Final

from ckpt_protocol.framing import encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.events import Effect, Log, SendClient, SendPeer
from ckptd.core.settings import Settings
from ckptd.core.stops import Stops
from ckptd.core.work_units import KIB_SHIFT

_ACK: Final = Kind.ACK

NEVER_NS: Final = 2**63
"""A deadline that does not come."""


class Context:
    """Time and effects of the event that is being handled, and the node's standing in its view.

    `alarms`: what an operator should see to, by name. `counters` only grow. `held_bytes`:
    about what this node's replicas take; `full_nodes`: those that may take no more.

    `lease_until_ns` and `frozen` decide whether this node may order updates and serve
    reads: a node that answered a collector is frozen until the next view is installed.

    `work` is what was done in this turn, counted; `work_until`: where the link that is served must stop.

    `moved`: tracked checkpoints of which this event made something visible. `closing`: links of
    clients that end with this event, and why. `cause`: what is being handled (a frame, a request,
    a replica, an operation), for the last words of a node that stops; `stops`: those that this
    node knows of. `contained_line_ns`: when `containment` may log again.
    """

    __slots__ = (
        "acks",
        "alarms",
        "cause",
        "closing",
        "confirmed_epoch",
        "contained_line_ns",
        "counters",
        "deadline_ns",
        "effects",
        "epoch",
        "frozen",
        "full_nodes",
        "held_bytes",
        "incarnation",
        "lease_until_ns",
        "moved",
        "node_id",
        "now_ns",
        "settings",
        "stops",
        "wall_offset_ns",
        "work",
        "work_until",
    )

    def __init__(self, settings: Settings, incarnation: int, now_ns: int, wall_offset_ns: int) -> None:
        self.settings = settings
        self.node_id = settings.node_id
        self.incarnation = incarnation
        self.now_ns = now_ns
        self.wall_offset_ns = wall_offset_ns
        self.epoch = 0
        self.frozen = True
        self.lease_until_ns = 0
        self.confirmed_epoch = 0
        self.effects: list[Effect] = []
        self.cause: object = None
        self.stops = Stops()
        self.acks: dict[tuple[str, int], int] = {}
        self.moved: dict[int, None] = {}
        self.deadline_ns = now_ns
        self.contained_line_ns = now_ns
        self.closing: dict[int, str] = {}
        self.alarms: dict[str, str] = {}
        self.counters: dict[str, int] = {}
        self.held_bytes = 0
        self.full_nodes: tuple[str, ...] = ()
        self.work = 0
        self.work_until = 0

    @property
    def wall_ns(self) -> int:
        """Nanoseconds since 1970."""
        return self.now_ns + self.wall_offset_ns

    def serving(self) -> bool:
        """Whether this node holds its view's lease now and has answered no collector since."""
        return self.now_ns < self.lease_until_ns and not self.frozen

    @property
    def confirmed(self) -> bool:
        """Whether every member has shown that it runs the view: only from then on did anybody serve in it."""
        return self.confirmed_epoch == self.epoch

    def wake_at(self, at_ns: int) -> None:
        """Have `TimeCame` no later than this."""
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
        """Count an event of the service's, for whoever watches."""
        self.counters[counter] = self.counters.get(counter, 0) + number

    def raise_alarm(self, name: str, text: str, again: bool = False) -> None:
        """Something is wrong until `clear_alarm`: one line when it begins, and `ckptctl status` shows it.

        `again`: one more line, though it was wrong before.
        """
        if again or name not in self.alarms:
            self.log(f"alarm {name}: {text}", "warning")
        self.alarms[name] = text

    def clear_alarm(self, name: str) -> None:
        """It is right again."""
        if name in self.alarms:
            del self.alarms[name]
            self.log(f"alarm {name} is over")

    def flush_acks(self) -> None:
        """Acknowledge what was staged: once for all that one event brought, since ACK is cumulative."""
        for (node_id, creation_id), seq in self.acks.items():
            self.effects.append(SendPeer(node_id, encode_frame(_ACK, creation_id, self.epoch, seq)))
        self.acks.clear()
