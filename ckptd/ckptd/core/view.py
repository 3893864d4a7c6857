"""Views: the agreed membership, and how one view follows another. Pure data and rules."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

LOSS_EPOCHS: Final = 1_000
"""By how much the epoch rises, at least, when a loss is accepted.

All that the lost side decides in the meantime has lower epochs. A node also has this many epochs to itself
after each such command: see `pair_policy.epoch_of_word`.
"""

DEPARTURES_PER_NODE_MAX: Final = 8
"""How many past memberships of a node are kept, beyond those since the last installed view."""

DEPARTURES_MAX: Final = 500
"""How many are kept in any case: how often a node may come and go while no view at all is installed."""

DEPARTURES_IN_ALL_MAX: Final = 8_000
"""How many of all nodes together: that many, at most 94 bytes each, fit into `VIEW_BYTES_MAX`."""


@dataclass(slots=True, frozen=True)
class Member:
    """A node's membership of the view: which incarnation, and since which epoch."""

    incarnation: int
    join_epoch: int


@dataclass(slots=True, frozen=True)
class Departure:
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
    departures: tuple[Departure, ...] = field(default=())
    founded: int = 0
    """The epoch of the cold start that this history began with."""
    witnesses: dict[str, int] = field(default_factory=dict)
    """The witnesses that were heard, by node id, each with its incarnation."""
    forced: bool = False
    """The operator had it decided."""
    idle: tuple[int, ...] = ()
    """Past epochs in which no node served, as far as this view's proposer could tell.

    Their coordinator died before it can have installed them.
    """

    @property
    def coordinator(self) -> str:
        """The member with the lowest join epoch, then node id."""
        return succession(self)[0]

    @property
    def incarnations(self) -> dict[str, int]:
        """The members by node id, each with its incarnation."""
        return {node_id: member.incarnation for node_id, member in self.members.items()}

    def has(self, node_id: str, incarnation: int) -> bool:
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
            [[d.node_id, d.incarnation, d.join_epoch, d.last_epoch] for d in self.departures],
            self.founded,
            [[node_id, incarnation] for node_id, incarnation in self.witnesses.items()],
            self.forced,
            list(self.idle),
        ]


def succession(view: View) -> list[str]:
    """Return all members in order: each is the coordinator when those before it are gone."""
    return sorted(view.members, key=lambda node_id: (view.members[node_id].join_epoch, node_id))


def founding(epoch: int, members: dict[str, int], witnesses: dict[str, int] | None = None) -> View:
    """Return the first view of a history: all members join, and none has data."""
    joined = {node_id: Member(members[node_id], epoch) for node_id in sorted(members)}
    return View(epoch, joined, (), epoch, witnesses or {})


def following(
    view: View,
    epoch: int,
    members: dict[str, int],
    witnesses: dict[str, int] | None = None,
    installed_epoch: int = 0,
    idle: tuple[int, ...] = (),
) -> View:
    """Return the view of `epoch` with these members (node id to incarnation), to follow `view`.

    A member that stays, with the same incarnation, keeps its join epoch. Any other joins now, also a
    restarted node, since it has no data (R2, R4). `installed_epoch` is the last that the proposer has
    installed: all memberships that ended since then are kept, and so are the `idle` epochs.
    """
    new: dict[str, Member] = {}
    for node_id in sorted(members):
        member = view.members.get(node_id)
        if member is None or member.incarnation != members[node_id]:
            member = Member(members[node_id], epoch)
        new[node_id] = member
    departures = list(view.departures)
    for node_id, member in view.members.items():
        if new.get(node_id) != member:
            departures.append(Departure(node_id, member.incarnation, member.join_epoch, view.epoch))
    idle = tuple(past for past in (*view.idle, *idle) if past > installed_epoch)[-DEPARTURES_MAX:]
    recent = tuple(_recent(departures, installed_epoch))
    return View(epoch, new, recent, view.founded, witnesses or {}, idle=idle)


def _recent(departures: list[Departure], installed_epoch: int) -> Iterable[Departure]:
    kept: dict[str, list[Departure]] = {}
    most = min(DEPARTURES_MAX, DEPARTURES_IN_ALL_MAX // len({each.node_id for each in departures} or "-"))
    for departure in departures:
        stays = kept.setdefault(departure.node_id, [])
        stays.append(departure)
        if len(stays) > DEPARTURES_PER_NODE_MAX and (
            stays[0].last_epoch < installed_epoch or len(stays) > most
        ):
            del stays[0]
    return [departure for node_id in sorted(kept) for departure in kept[node_id]]


def was_member(view: View, node_id: str, epoch: int) -> bool:
    """Return True if this incarnation of a member was one at `epoch` too, as far as is remembered."""
    member = view.members[node_id]
    return member.join_epoch <= epoch or any(
        (departure.node_id, departure.incarnation) == (node_id, member.incarnation)
        and departure.join_epoch <= epoch <= departure.last_epoch
        for departure in view.departures
    )


def served_between(view: View, installed: dict[str, int], before: dict[str, int]) -> bool:
    """Return True if any node may have served in a view after the newest that a member has installed.

    `installed` are the epochs that the members have installed, `before` those that their earlier
    incarnations had, according to their disks. Serving takes a lease, and a lease takes every member's
    echo: a view that one of its members never installed did nothing.
    """
    first = max(installed.values()) + 1
    return not all(
        epoch in view.idle or _did_nothing(view, epoch, installed, before)
        for epoch in _where_it_may_change(view, installed, before, first)
    )


def _where_it_may_change(
    view: View, installed: dict[str, int], before: dict[str, int], first: int
) -> list[int]:
    """Return the epochs, from `first` up to the view's, at which the answer may differ from the epoch before.

    A peer's message determines how far apart the two are. Going through all epochs between them once took
    forever.
    """
    told = [*view.idle, *installed.values(), *before.values()]
    told += [member.join_epoch for member in view.members.values()]
    for departure in view.departures:
        told += (departure.join_epoch, departure.last_epoch)
    changes = {epoch + after for epoch in told for after in (0, 1)} | {first}
    return sorted(epoch for epoch in changes if first <= epoch < view.epoch)


def _did_nothing(view: View, epoch: int, installed: dict[str, int], before: dict[str, int]) -> bool:
    if any(installed[node_id] < epoch and was_member(view, node_id, epoch) for node_id in view.members):
        return True
    return any(
        departure.join_epoch <= epoch <= departure.last_epoch and before[departure.node_id] < epoch
        for departure in view.departures
        if departure.node_id in view.members
        and departure.incarnation < view.members[departure.node_id].incarnation
    )


def served_by_earlier_starts(view: View, before: dict[str, int]) -> int:
    """Return the newest epoch in which an earlier incarnation of a member may have served; 0 for none.

    Their disks hold that. A disk that was lost says nothing (`before` is beyond any epoch), but an
    incarnation did not serve in a view that it was not a member of.
    """
    return max(
        (
            min(before[departure.node_id], departure.last_epoch)
            for departure in view.departures
            if departure.node_id in view.members
            and departure.incarnation < view.members[departure.node_id].incarnation
        ),
        default=0,
    )


def last_epoch_of_stay(view: View, node_id: str, incarnation: int, base_epoch: int) -> int:
    """Return the last epoch of the membership that a node had at `base_epoch`; 0 if it had none.

    It is the view's own epoch if the node never left.
    """
    member = view.members.get(node_id)
    if member is not None and member.incarnation == incarnation and member.join_epoch <= base_epoch:
        return view.epoch
    for departure in view.departures:
        if (departure.node_id, departure.incarnation) != (node_id, incarnation):
            continue
        if departure.join_epoch <= base_epoch <= departure.last_epoch:
            return departure.last_epoch
    return 0
