"""Whether a session had better be at another node: the one whose replica orders its updates.

Pure. Every answer names the view's epoch and the active replica's place among the members, counted from 1 in
the order of their node ids. Where the answers to updates name one and the same other node for a good while,
each of them crosses the network once more than it must: the session goes there. It does so seldom, since a
move costs more than many detours.
"""

from collections.abc import Iterable
from typing import Final

from ckpt_client.session.address import Address, choose_addresses, choose_key, is_given
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_client.session.endpoints import Route
from ckpt_protocol.greeting import Identity

FOLLOW_UPDATES: Final = 100
"""So many updates in favour of one other node are a good while."""

OTHER_WEIGHT: Final = 4
"""What an update that names some other place takes away: a session that has several checkpoints open follows
where more than four of five updates go, and stays where they are spread."""

REST_NS: Final = 30_000 * MILLISECOND_NS
"""After a move there is no other for so long, wherever the active replica goes."""

AVOID_NS: Final = 60_000 * MILLISECOND_NS
"""A node that was lost, or an address that could not be gone to, is not gone to for so long."""


def choose_following(follow_active: bool | None, addresses: tuple[Address, ...], given: bool) -> bool:
    """Whether a session follows the active replica. `given`: the addresses were named, not the default.

    Who names one address, most often of the local node, means that node: reads of it are near and cheap. Who
    names several leaves the choice to us.
    """
    return given and len(addresses) > 1 if follow_active is None else bool(follow_active)


def place_of(
    address: str | Iterable[str] | None, cluster: str, key: str | bytes | None, follow_active: bool | None
) -> tuple[tuple[Address, ...], Identity, bool]:
    """Addresses, who we are, and whether to follow, from what `Connection` is given.

    Raises: SaAisError INVALID_PARAM.
    """
    addresses = choose_addresses(address)
    follows = choose_following(follow_active, addresses, is_given(address))
    return addresses, Identity(cluster, choose_key(key)), follows


class Following:
    """What the answers said of the active replica, and where not to go just now."""

    def __init__(self) -> None:
        self._epoch = 0
        self._place = 0
        self._score = 0
        self._members: tuple[str, ...] = ()
        self._members_epoch = -1
        self._avoided: dict[Address | str, int] = {}
        self._rest_until_ns = 0

    def note(self, epoch: int, place: int) -> bool:
        """An update was answered. True: time to see whether the session is at the right node."""
        if place == self._place and epoch == self._epoch:
            self._score += 1
            return self._score >= FOLLOW_UPDATES
        self._score -= OTHER_WEIGHT
        if self._score < 0:
            self._epoch, self._place, self._score = epoch, place, 1
        return False

    def forget(self) -> None:
        """Begin to count again."""
        self._score = 0

    @property
    def knows_members(self) -> bool:
        """Whether the members are known of the epoch that the answers name."""
        return self._members_epoch == self._epoch

    def learn(self, epoch: int, node_ids: tuple[str, ...]) -> None:
        """The members of an epoch."""
        self._members_epoch, self._members = epoch, tuple(sorted(node_ids))

    def choose(self, route: Route, here: str, now_ns: int) -> tuple[str, Address] | None:
        """The active replica's node and an address of it, where that is not `here` and may be gone to."""
        self.forget()
        if not 0 < self._place <= len(self._members) or now_ns < self._rest_until_ns:
            return None
        node_id = self._members[self._place - 1]
        if node_id == here or self.avoids(node_id, now_ns):
            return None
        for address in route.addresses_of(node_id):
            if not self.avoids(address, now_ns):
                return node_id, address
        return None

    def avoids(self, place: Address | str, now_ns: int) -> bool:
        """Whether an address, or a node, is not to be gone to just now."""
        return now_ns < self._avoided.get(place, 0)

    def avoid(self, place: Address | str, now_ns: int) -> None:
        """An address could not be gone to, or a node was lost."""
        self._avoided = {kept: until for kept, until in self._avoided.items() if until > now_ns}
        self._avoided[place] = now_ns + AVOID_NS

    def rest(self, now_ns: int) -> None:
        """The session went where it was told to go, or had too much to do for that."""
        self.forget()
        self._rest_until_ns = now_ns + REST_NS
