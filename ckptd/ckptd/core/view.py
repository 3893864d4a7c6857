"""Views: the agreed membership, and which view may follow another. Pure data and rules."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

LOSS_EPOCHS: Final = 1_000
"""How far the epoch goes up at least where a loss is accepted: whatever the lost side decides meanwhile is
lower. And so many epochs a node has for itself with each such word: see `pair_policy.epoch_of_word`."""

DEPARTURES_PER_NODE_MAX: Final = 8
"""How many of a node's past stays in views are remembered, beside those since the last installed view."""

DEPARTURES_MAX: Final = 500
"""How many in any case: so often a node may come and go while no view at all is installed."""

DEPARTURES_IN_ALL_MAX: Final = 8_000
"""Of all nodes together: a view with as many, at most 94 bytes each, fits into `VIEW_BYTES_MAX`."""


@dataclass(slots=True, frozen=True)
class Member:
    """A node's stay in the view: which start of it, since which epoch."""

    incarnation: int
    join_epoch: int


@dataclass(slots=True, frozen=True)
class Departure:
    """A stay that ended: the node was a member from `join_epoch` to `last_epoch`."""

    node_id: str
    incarnation: int
    join_epoch: int
    last_epoch: int


@dataclass(slots=True, frozen=True)
class View:
    """One epoch's members by node id (sorted), and the stays of those that left.

    `founded` is the epoch of the cold start that this history began with. `witnesses` are
    those that were heard, by node id, with the start of each. `forced`: the operator had
    it decided. `idle`: past epochs in which nobody served, as whoever proposed this view could
    tell: their coordinator died before it can have installed them.
    """

    epoch: int
    members: dict[str, Member]
    departures: tuple[Departure, ...] = field(default=())
    founded: int = 0
    witnesses: dict[str, int] = field(default_factory=dict)
    forced: bool = False
    idle: tuple[int, ...] = ()

    @property
    def coordinator(self) -> str:
        """The member with the lowest join epoch, then node id."""
        return succession(self)[0]

    @property
    def starts(self) -> dict[str, int]:
        """The members by node id, with the start of each."""
        return {node_id: member.incarnation for node_id, member in self.members.items()}

    def has(self, node_id: str, incarnation: int) -> bool:
        """Whether this very start of the node is a member."""
        member = self.members.get(node_id)
        return member is not None and member.incarnation == incarnation

    def ordinal(self, node_id: str | None) -> int:
        """A member's place among the sorted node ids, from 1; 0 for none."""
        return list(self.members).index(node_id) + 1 if node_id in self.members else 0

    def fields(self) -> list[Any]:
        """As it travels."""
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
    """All members, each the coordinator when those before it are gone."""
    return sorted(view.members, key=lambda node_id: (view.members[node_id].join_epoch, node_id))


def founding(epoch: int, members: dict[str, int], witnesses: dict[str, int] | None = None) -> View:
    """The first view of a history: everybody joins, nobody has data."""
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
    """The view of `epoch` with these members (node id to incarnation), as it follows `view`.

    Who was a member, and is the same start of its node, keeps its join epoch; anybody
    else joins now: a restarted node has no data (R2, R4). `installed_epoch` is the last that
    the proposer has installed: stays that ended since are all remembered, and `idle` epochs.
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
    """Whether this start of a member was a member in that earlier epoch too, as far as is remembered."""
    member = view.members[node_id]
    return member.join_epoch <= epoch or any(
        (departure.node_id, departure.incarnation) == (node_id, member.incarnation)
        and departure.join_epoch <= epoch <= departure.last_epoch
        for departure in view.departures
    )


def served_between(view: View, installed: dict[str, int], before: dict[str, int]) -> bool:
    """Whether anybody may have served in a view behind the newest that a member has installed.

    `installed` are the epochs that the members have installed, `before` those that earlier
    starts of theirs had, by their disks. Serving takes a lease, and a lease takes every
    member's echo: a view that one of its members never installed did nothing.
    """
    first = max(installed.values()) + 1
    return not all(
        epoch in view.idle or _did_nothing(view, epoch, installed, before)
        for epoch in _where_it_may_change(view, installed, before, first)
    )


def _where_it_may_change(
    view: View, installed: dict[str, int], before: dict[str, int], first: int
) -> list[int]:
    """The epochs from `first` to the view's at which the answer may differ from that one epoch earlier.

    A peer says how far apart the two are. Going through all epochs between them once took for ever.
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
    """The newest epoch in which an earlier start of a member may have served, by its disk; 0 for none.

    A disk that was lost says nothing (`before` is beyond any epoch), but a start served in no
    view that it was not a member of.
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
    """The last epoch of a node that was a member at `base_epoch`: the view's own if it never left, else 0."""
    member = view.members.get(node_id)
    if member is not None and member.incarnation == incarnation and member.join_epoch <= base_epoch:
        return view.epoch
    for departure in view.departures:
        if (departure.node_id, departure.incarnation) != (node_id, incarnation):
            continue
        if departure.join_epoch <= base_epoch <= departure.last_epoch:
            return departure.last_epoch
    return 0
