"""What all simulated clients of one cluster share: the checkpoints, and the history of their calls."""

from collections.abc import Mapping
from typing import Protocol

from ckpt_protocol.constants import SA_TIME_END
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers.checkers import Subject
from ckptd.sim.checkers.history import History
from ckptd.sim.checkers.leaderships import LeadershipHistory
from ckptd.sim.checkers.limits_history import LimitsHistory
from ckptd.sim.checkers.open_close import OpenCloseHistory
from ckptd.sim.clients.checkpoints import KINDS, SimCheckpoint
from ckptd.sim.world.client_links import ClientLinks
from ckptd.sim.world.world import World

BATCH_BYTES = 10_000
"""More than all sections of a checkpoint take here."""


class KnownLosses(Protocol):
    """What the nodes have really lost. Only then may a client miss something."""

    @property
    def lost(self) -> Mapping[int, bool]:
        """Checkpoints of which every replica died, by creation id."""

    @property
    def without_replica_since_ns(self) -> Mapping[int, int]:
        """Since when no process with a whole replica of a checkpoint is left, by creation id."""

    @property
    def history_lost(self) -> bool:
        """True once anything that was ordered may be gone."""


class Workload:
    """All checkpoints, and the history of all calls on them."""

    def __init__(self, world: World, links: ClientLinks, losses: KnownLosses) -> None:
        self.world = world
        self.links = links
        self.losses = losses
        self.history = History()
        self.open_close = OpenCloseHistory()
        self.subjects: dict[int, Subject] = {}
        self.versions: dict[tuple[bytes, bytes, bytes], bytes] = {}
        """By checkpoint's name, section and version: the value that was seen with it."""
        self.leaderships = LeadershipHistory()
        self.limits = LimitsHistory()
        self.resting = False
        """While True, no client begins a new call on its own."""

        self.closed = False
        """Once True, no client begins a new session."""

        kinds = list(KINDS[world.options.kinds])
        world.random.shuffle(kinds)
        self.checkpoints = [
            self._draw_checkpoint(number, kinds[number % len(kinds)])
            for number in range(world.options.checkpoints)
        ]

    def _draw_checkpoint(self, number: int, flags: int) -> SimCheckpoint:
        random = self.world.random
        retention_ns = random.choice(
            (0, 50 * MILLISECOND_NS, SECOND_NS, 3 * SECOND_NS, SA_TIME_END, SA_TIME_END)
        )
        return SimCheckpoint(b"t%d" % number, flags, retention_ns, random.random() < 0.15)

    def subject(self, checkpoint: SimCheckpoint, creation_id: int) -> Subject:
        """Return what the checkers need to know of a checkpoint."""
        if creation_id not in self.subjects:
            fragments = self.world.options.weak_batch_bytes < BATCH_BYTES
            self.subjects[creation_id] = Subject(
                checkpoint.name,
                creation_id,
                checkpoint.flags,
                checkpoint.section_ids,
                checkpoint.single,
                fragments=fragments,
            )
        return self.subjects[creation_id]

    @property
    def history_lost(self) -> bool:
        """True once anything that was ordered may be gone."""
        return self.losses.history_lost

    def is_lost(self, creation_id: int) -> bool:
        """Return True if every replica of a checkpoint died."""
        return creation_id in self.losses.lost or self.history_lost

    def was_lost_before(self, creation_id: int, since_ns: int) -> bool:
        """Return True if every replica of a checkpoint had died before that time."""
        return (
            not self.history_lost
            and self.losses.without_replica_since_ns.get(creation_id, since_ns) < since_ns
        )
