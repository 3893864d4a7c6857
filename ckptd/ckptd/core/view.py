"""Views: the agreed membership, and how one view follows another. Pure data and rules."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

EPOCH_JUMP_DATA_LOSS: Final = 1_000
"""By how much the epoch rises, at least, when a loss is accepted.

All that the lost side decides in the meantime has lower epochs. A node also has this many epochs to itself
after each such command: see `pair_policy.epoch_of_command`.
"""

PAST_MEMBERSHIPS_PER_NODE_MAX: Final = 8
"""How many past memberships of a node are kept, beyond those since the last installed view."""

PAST_MEMBERSHIPS_MAX: Final = 500
"""How many are kept in any case: how often a node may come and go while no view at all is installed."""

PAST_MEMBERSHIPS_IN_ALL_MAX: Final = 8_000
"""How many of all nodes together: that many, at most 94 bytes each, fit into `VIEW_BYTES_MAX`."""


@dataclass(slots=True, frozen=True)
class Member:
    """A node's membership of the view: which incarnation, and since which epoch."""

    incarnation: int
    join_epoch: int


@dataclass(slots=True, frozen=True)
class PastMembership:
    """A membership that ended: the node was a member from `join_epoch` to `last_epoch`."""

    node_id: str
    incarnation: int
    join_epoch: int
    last_epoch: int


@dataclass(slots=True, frozen=True)
class View:
    """The members of one epoch by node id (sorted), and the memberships that have ended."""

    epoch: int
    members: dict[str, Member]
    past_memberships: tuple[PastMembership, ...] = field(default=())
    bootstrap_epoch: int = 0
    """The epoch of the cold start that this history began with."""
    witnesses: dict[str, int] = field(default_factory=dict)
    """The witnesses that were heard, by node id, each with its incarnation."""
    operator_forced: bool = False
    """The operator had it decided."""
    unserved_epochs: tuple[int, ...] = ()
    """Past epochs in which no node served, as far as this view's proposer could tell.

    Their coordinator died before it can have installed them.
    """
    feature_level: int = 0
    """What all configured nodes understand, as far as was ever known (ADR 31). It never falls."""

    @property
    def coordinator(self) -> str:
        """The member with the lowest join epoch, then node id."""
        return succession(self)[0]

    @property
    def incarnations(self) -> dict[str, int]:
        """The members by node id, each with its incarnation."""
        return {node_id: member.incarnation for node_id, member in self.members.items()}

    def includes(self, node_id: str, incarnation: int) -> bool:
        """Return True if this incarnation of the node is a member."""
        member = self.members.get(node_id)
        return member is not None and member.incarnation == incarnation

    def ordinal(self, node_id: str | None) -> int:
        """Return a member's position among the sorted node ids, from 1; 0 if it is not a member."""
        return list(self.members).index(node_id) + 1 if node_id in self.members else 0

    def fields(self) -> list[Any]:
        """Return the view as it is sent."""
        return [
            self.epoch,
            [[node_id, member.incarnation, member.join_epoch] for node_id, member in self.members.items()],
            [[d.node_id, d.incarnation, d.join_epoch, d.last_epoch] for d in self.past_memberships],
            self.bootstrap_epoch,
            [[node_id, incarnation] for node_id, incarnation in self.witnesses.items()],
            self.operator_forced,
            list(self.unserved_epochs),
            self.feature_level,
        ]


def succession(view: View) -> list[str]:
    """Return all members in order: each is the coordinator when those before it are gone."""
    return sorted(view.members, key=lambda node_id: (view.members[node_id].join_epoch, node_id))


def bootstrap_view(epoch: int, members: dict[str, int], witnesses: dict[str, int] | None = None) -> View:
    """Return the first view of a history: all members join, and none has data."""
    joined = {node_id: Member(members[node_id], epoch) for node_id in sorted(members)}
    return View(epoch, joined, (), epoch, witnesses or {})


def successor_view(
    view: View,
    epoch: int,
    members: dict[str, int],
    witnesses: dict[str, int] | None = None,
    installed_epoch: int = 0,
    unserved_epochs: tuple[int, ...] = (),
) -> View:
    """Return the view of `epoch` with these members (node id to incarnation), to follow `view`.

    A member that stays, with the same incarnation, keeps its join epoch. Any other joins now, also a
    restarted node, since it has no data (R2, R4). `installed_epoch` is the last that the proposer has
    installed: all memberships that ended since then are kept, and so are the `unserved_epochs` epochs.
    """
    new: dict[str, Member] = {}
    for node_id in sorted(members):
        member = view.members.get(node_id)
        if member is None or member.incarnation != members[node_id]:
            member = Member(members[node_id], epoch)
        new[node_id] = member
    past_memberships = list(view.past_memberships)
    for node_id, member in view.members.items():
        if new.get(node_id) != member:
            past_memberships.append(
                PastMembership(node_id, member.incarnation, member.join_epoch, view.epoch)
            )
    unserved_epochs = tuple(
        past for past in (*view.unserved_epochs, *unserved_epochs) if past > installed_epoch
    )[-PAST_MEMBERSHIPS_MAX:]
    recent = tuple(_recent(past_memberships, installed_epoch))
    return View(epoch, new, recent, view.bootstrap_epoch, witnesses or {}, unserved_epochs=unserved_epochs)


def _recent(past_memberships: list[PastMembership], installed_epoch: int) -> Iterable[PastMembership]:
    kept: dict[str, list[PastMembership]] = {}
    most = min(
        PAST_MEMBERSHIPS_MAX,
        PAST_MEMBERSHIPS_IN_ALL_MAX // len({each.node_id for each in past_memberships} or "-"),
    )
    for past in past_memberships:
        memberships = kept.setdefault(past.node_id, [])
        memberships.append(past)
        if len(memberships) > PAST_MEMBERSHIPS_PER_NODE_MAX and (
            memberships[0].last_epoch < installed_epoch or len(memberships) > most
        ):
            del memberships[0]
    return [past for node_id in sorted(kept) for past in kept[node_id]]


def was_member(view: View, node_id: str, epoch: int) -> bool:
    """Return True if this incarnation of a member was one at `epoch` too, as far as is remembered."""
    member = view.members[node_id]
    return member.join_epoch <= epoch or any(
        (past.node_id, past.incarnation) == (node_id, member.incarnation)
        and past.join_epoch <= epoch <= past.last_epoch
        for past in view.past_memberships
    )


def may_have_served_between(view: View, installed: dict[str, int], before: dict[str, int]) -> bool:
    """Return True if any node may have served in a view after the newest that a member has installed.

    `installed` are the epochs that the members have installed, `before` those that their earlier
    incarnations had, according to their disks. Serving takes a lease, and a lease takes every member's
    echo: a view that one of its members never installed did nothing.
    """
    first = max(installed.values()) + 1
    return not all(
        epoch in view.unserved_epochs or _cannot_have_served(view, epoch, installed, before)
        for epoch in _epochs_to_check(view, installed, before, first)
    )


def _epochs_to_check(view: View, installed: dict[str, int], before: dict[str, int], first: int) -> list[int]:
    """Return the epochs, from `first` up to the view's, at which the answer may differ from the epoch before.

    A peer's message determines how far apart the two are. Going through all epochs between them once took
    forever.
    """
    mentioned = [*view.unserved_epochs, *installed.values(), *before.values()]
    mentioned += [member.join_epoch for member in view.members.values()]
    for past in view.past_memberships:
        mentioned += (past.join_epoch, past.last_epoch)
    changes = {epoch + after for epoch in mentioned for after in (0, 1)} | {first}
    return sorted(epoch for epoch in changes if first <= epoch < view.epoch)


def _cannot_have_served(view: View, epoch: int, installed: dict[str, int], before: dict[str, int]) -> bool:
    if any(installed[node_id] < epoch and was_member(view, node_id, epoch) for node_id in view.members):
        return True
    return any(
        past.join_epoch <= epoch <= past.last_epoch and before[past.node_id] < epoch
        for past in view.past_memberships
        if past.node_id in view.members and past.incarnation < view.members[past.node_id].incarnation
    )


def served_by_earlier_incarnations(view: View, before: dict[str, int]) -> int:
    """Return the newest epoch in which an earlier incarnation of a member may have served; 0 for none.

    Their disks hold that. A disk that was lost says nothing (`before` is beyond any epoch), but an
    incarnation did not serve in a view that it was not a member of.
    """
    return max(
        (
            min(before[past.node_id], past.last_epoch)
            for past in view.past_memberships
            if past.node_id in view.members and past.incarnation < view.members[past.node_id].incarnation
        ),
        default=0,
    )


def last_epoch_of_membership(view: View, node_id: str, incarnation: int, base_epoch: int) -> int:
    """Return the last epoch of the membership that a node had at `base_epoch`; 0 if it had none.

    It is the view's own epoch if the node never left.
    """
    member = view.members.get(node_id)
    if member is not None and member.incarnation == incarnation and member.join_epoch <= base_epoch:
        return view.epoch
    for past in view.past_memberships:
        if (past.node_id, past.incarnation) != (node_id, incarnation):
            continue
        if past.join_epoch <= base_epoch <= past.last_epoch:
            return past.last_epoch
    return 0
