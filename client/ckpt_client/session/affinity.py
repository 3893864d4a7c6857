"""Client affinity: find out whether a session should be at the node whose replica orders its updates.

Pure. Every answer names the view's epoch and the active replica's position among the members, counted from 1
in the order of their node ids. If the answers to updates keep naming the same other node, each of these
updates crosses the network once more than necessary, so the session moves to that node. It rarely does, since
a move costs more than many detours.
"""

from collections.abc import Iterable
from typing import Final

from ckpt_client.session.address import Address, choose_addresses, choose_key, is_given
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_client.session.endpoints import Endpoints
from ckpt_protocol.handshake import Identity

FOLLOW_UPDATES: Final = 100
"""After this many updates in favour of one node the session considers moving there."""

OTHER_NODE_PENALTY: Final = 4
"""How many updates in favour of a node are cancelled by one update that names another.

So a session with several open checkpoints moves if more than four of five updates go to one node, and stays
if they are spread.
"""

REST_NS: Final = 30_000 * MILLISECOND_NS
"""How long a session stays after a move, wherever the active replica goes."""

AVOID_NS: Final = 60_000 * MILLISECOND_NS
"""How long a session avoids a node that was lost, or an address to which it could not move."""


def wants_affinity(follow_active: bool | None, addresses: tuple[Address, ...], given: bool) -> bool:
    """Return True if a session follows the active replica. `given`: the addresses are not the default ones.

    A program that names one address, usually that of the local node, means that node: reading from it is near
    and cheap. A program that names several leaves the choice to us.
    """
    return given and len(addresses) > 1 if follow_active is None else bool(follow_active)


def endpoint_of(
    address: str | Iterable[str] | None, cluster: str, key: str | bytes | None, follow_active: bool | None
) -> tuple[tuple[Address, ...], Identity, bool]:
    """Return the addresses, our identity and whether to follow, from the arguments of `Connection`.

    Raises: SaAisError INVALID_PARAM.
    """
    addresses = choose_addresses(address)
    follows = wants_affinity(follow_active, addresses, is_given(address))
    return addresses, Identity(cluster, choose_key(key)), follows


class ActiveAffinity:
    """What the answers have said about the active replica, and where the session must not go for now."""

    def __init__(self) -> None:
        self._epoch = 0
        self._place = 0
        self._score = 0
        self._members: tuple[str, ...] = ()
        self._members_epoch = -1
        self._avoided: dict[Address | str, int] = {}
        self._rest_until_ns = 0

    def note(self, epoch: int, place: int) -> bool:
        """Count an answered update. Return True when it is time to check whether to go to another node."""
        if place == self._place and epoch == self._epoch:
            self._score += 1
            return self._score >= FOLLOW_UPDATES
        self._score -= OTHER_NODE_PENALTY
        if self._score < 0:
            self._epoch, self._place, self._score = epoch, place, 1
        return False

    def forget(self) -> None:
        """Start counting again."""
        self._score = 0

    @property
    def knows_members(self) -> bool:
        """True if we know the members of the epoch that the answers name."""
        return self._members_epoch == self._epoch

    def learn(self, epoch: int, node_ids: tuple[str, ...]) -> None:
        """Remember the members of an epoch."""
        self._members_epoch, self._members = epoch, tuple(sorted(node_ids))

    def choose(self, route: Endpoints, here: str, now_ns: int) -> tuple[str, Address] | None:
        """Return the active replica's node and an address of it; None if it is `here` or must be avoided."""
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
        """Return True if the session must not go to this address or node for now."""
        return now_ns < self._avoided.get(place, 0)

    def cool_down(self, place: Address | str, now_ns: int) -> None:
        """Avoid an address to which the session could not move, or a node that was lost."""
        self._avoided = {kept: until for kept, until in self._avoided.items() if until > now_ns}
        self._avoided[place] = now_ns + AVOID_NS

    def rest(self, now_ns: int) -> None:
        """Stay for REST_NS: the session has just moved, or was too busy to move."""
        self.forget()
        self._rest_until_ns = now_ns + REST_NS
