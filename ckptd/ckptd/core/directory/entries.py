"""The rows of the directory: checkpoints and sessions."""

from dataclasses import dataclass, field
from typing import NamedTuple

from ckpt_protocol.limits import FORMER_LIMITS_MAX
from ckptd.core.directory.attributes import Attributes, Limits
from ckptd.core.reply_cache import ReplyCache


class NamedLeader(NamedTuple):
    """Who leads a checkpoint, or is to lead it next. The checkpoint's own updates decide whose writes count.

    The directory names it for the sake of UNLINK. It also keeps the name when the leader's session ends for
    lack of a connection: such a leader may live, and leads until its ttl is over.
    """

    session: int
    handle: int
    secret: int
    exclusive: bool
    shown: str

    @property
    def key(self) -> tuple[int, int]:
        """Its session and handle."""
        return self.session, self.handle


@dataclass(slots=True)
class CheckpointEntry:
    """One checkpoint. `attributes`: those in force, with the limits of the last resize."""

    creation_id: int
    name: bytes
    attributes: Attributes
    retention_ns: int
    replicas: dict[str, bool]
    """By node id: True if that replica is in sync."""
    active: str | None
    activation_seq: int = 0
    """The directory's seq when the active replica was last placed. A report says which placing it is for."""
    opens: dict[tuple[int, int], int] = field(default_factory=dict)
    unlinked: bool = False
    last_closed_ns: int = 0
    created_ns: int = 0
    """When it was created (ns since 1970), which is also the time of its default section's first update."""
    retention_seq: int = 0
    """The directory's seq when the current retention began. An open or a new duration ends that retention."""
    last_in_sync: dict[str, int] = field(default_factory=dict)
    """While no member is in sync: the nodes that were in sync last, each with its incarnation."""
    leader: NamedLeader | None = None
    resize_number: int = 0
    """The number of the last resize that the directory knows; 0: none."""
    former: tuple[Attributes, ...] = ()
    """The attributes before each resize, oldest first: those of the creation, and the newest others."""

    @property
    def created_with(self) -> Attributes:
        """The attributes of the creation: every replica begins with them."""
        return self.former[0] if self.former else self.attributes

    def resize(self, number: int, limits: Limits) -> None:
        """Put the limits of a resize in force, and remember those that it replaces."""
        before = self.attributes
        self.resize_number, self.attributes = number, before.with_limits(limits)
        others = [known for known in self.former[1:] if known != before]
        if self.former and before != self.former[0]:
            others.append(before)
        first = self.former[0] if self.former else before
        self.former = (first, *others[1 - FORMER_LIMITS_MAX :])

    @property
    def may_be_led(self) -> bool:
        """Return True if a leader is named, and an active replica ends that when the ttl is over."""
        return self.leader is not None and self.active is not None

    @property
    def in_sync(self) -> list[str]:
        """The nodes whose replicas are in sync, sorted."""
        return sorted(node_id for node_id, in_sync in self.replicas.items() if in_sync)


@dataclass(slots=True)
class SessionEntry:
    """A client's session: where it is attached, what it has open, and its answers."""

    node_id: str
    generation: int
    migrated_seq: int = field(default=0, compare=False)
    """The directory's seq when the session last migrated from another node; 0 if this member does not know.
    It is not sent with the directory."""
    death_seen: bool = False
    """The death of its client's process is known at once."""
    opens: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By handle: creation id and open flags."""
    answers: ReplyCache = field(default_factory=ReplyCache)
