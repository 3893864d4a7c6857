"""Which address a session tries next, when, and why the others failed.

Pure: the caller passes in what happened and the current time.
"""

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from ckpt_client.errors import SaAisError
from ckpt_client.session.address import ADDRESSES_MAX, Address, parse_address
from ckpt_protocol.limits import NODES_MAX

PAUSE_MIN_NS: Final = 10_000_000
PAUSE_MAX_NS: Final = 250_000_000
"""The pause between two rounds over all addresses; it doubles from the one to the other."""

ALL_WITNESSES: Final = (
    "all these addresses belong to witnesses, which vote and hold no data: give the address of another node"
)
NOBODY_LISTENS: Final = "no daemon listens"
HOW_TO_START: Final = "start one with: ckptd --node-id a --listen 127.0.0.1:7301"


class Outlook(Enum):
    """What a failed connection says about the next attempt at the same address."""

    OPEN = 0
    """It may succeed."""

    NOT_YET = 1
    """It fails until a daemon listens there, or until the host has an address."""

    HOPELESS = 2
    """It fails whatever starts there: this user may not connect, or the host's name is invalid."""


def advice_on(failures: Iterable[str]) -> str:
    """Return what to do if every address failed for these reasons; "" if a person has to look.

    Starting a daemon does not help if this user may not connect to one, or if a host's name is not found.
    """
    return HOW_TO_START if all(why.startswith(NOBODY_LISTENS) for why in failures) else ""


class Endpoints:
    """The addresses in the order in which they are tried: those given, then those named by the service."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        if not addresses:
            raise AssertionError("a route without addresses")
        self._given = addresses
        self._addresses = addresses
        self._place = 0
        self._failures = 0
        self._pause_ns = PAUSE_MIN_NS
        self._reasons: dict[Address, tuple[int, str]] = {}
        self._not_yet: set[Address] = set()
        self._witnesses: set[Address] = set()
        self._nodes: dict[Address, str] = {}
        self._members: dict[str, tuple[Address, ...]] = {}
        self.connect_ns = 0
        """When `current` may be tried."""

    @property
    def current(self) -> Address:
        """The address in use, or the one to try next."""
        return self._addresses[self._place]

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All addresses, in the order in which they are tried."""
        return self._addresses

    @property
    def has_others(self) -> bool:
        """True if there is more than one address."""
        return len(self._addresses) > 1

    @property
    def first_round(self) -> bool:
        """True if other addresses have not failed since a node last served us."""
        return self._failures < len(self._addresses) - 1

    def succeeded(self, node_id: str) -> None:
        """Note that node `node_id` serves us at the current address; forget the earlier failures."""
        self.remember(self.current, node_id)
        self._failures = 0
        self._pause_ns = PAUSE_MIN_NS
        self._reasons.clear()

    def failed(self, now_ns: int, why: str, final_code: int = 0, not_yet: bool = False) -> None:
        """Note that the current address failed; try the next one, after a pause once all have failed.

        `final_code` is the SAF code if the next attempt fails as well, 0 if it may succeed. `not_yet` is True
        if it fails only until a daemon starts there.
        """
        self._reasons[self.current] = (final_code, why)
        self._not_yet.discard(self.current)
        if not_yet:
            self._not_yet.add(self.current)
        self._failures += 1
        self._place = (self._place + 1) % len(self._addresses)
        if self._failures < len(self._addresses):
            self.connect_ns = now_ns
            return
        self.connect_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, PAUSE_MAX_NS)

    def final_code(self) -> int:
        """Return the code to fail with if every address failed permanently; 0 while there is hope.

        A refusal by a daemon says more than that nothing listens elsewhere, so its code is preferred.
        """
        codes = [self._reasons.get(address, (0, ""))[0] for address in self._addresses]
        return min(codes)

    @property
    def may_start(self) -> bool:
        """True if an address failed only because no daemon listens there yet."""
        return not self._not_yet.isdisjoint(self._reasons)

    def start_again(self, now_ns: int) -> None:
        """Forget a final_code, because there is a new request."""
        self._witnesses.clear()
        self._failures = 0
        self._reasons.clear()
        self.connect_ns = now_ns

    def update_members(self, members: Mapping[str, Iterable[str]]) -> None:
        """Add the members' TCP addresses, as the service named them, to the addresses.

        Paths of unix sockets mean something else on each host, so they are not taken.
        """
        self._members = {node_id: _tcp_addresses(urls) for node_id, urls in members.items()}
        told = [address for addresses in self._members.values() for address in addresses]
        learned = [address for address in told if address not in self._given]
        # We keep the current address even if the service no longer names it, because we are using it.
        self._take((*self._given, *learned[: 2 * NODES_MAX]), self.current)

    def switch_to(self, address: Address) -> None:
        """Note that the session is at `address` now."""
        self._take(self._addresses, address)

    def _take(self, addresses: tuple[Address, ...], current: Address) -> None:
        self._addresses = tuple(dict.fromkeys((*addresses, current)))
        self._place = self._addresses.index(current)

    def remember(self, address: Address, node_id: str) -> None:
        """Remember which node answered the handshake at an address."""
        if address in self._nodes or len(self._nodes) < ADDRESSES_MAX:
            self._nodes[address] = node_id

    def addresses_of(self, node_id: str) -> tuple[Address, ...]:
        """Return where a node may be reached over a stream, the best address first.

        First come given addresses that are known to be the node's, then those that the service named, then
        given ones about which nothing is known.
        """
        streams = [address for address in self._given if not address.datagram]
        known = [address for address in streams if self._nodes.get(address) == node_id]
        told = [
            address
            for address in self._members.get(node_id, ())
            if self._nodes.get(address, node_id) == node_id
        ]
        unknown = [address for address in streams if address not in self._nodes]
        return tuple(dict.fromkeys((*known, *told, *unknown)))

    def note_witness(self) -> None:
        """Note that the node at the current address is a witness, which takes no sessions."""
        self._witnesses.add(self.current)

    @property
    def hint(self) -> str:
        """What to do if no address serves; "" if the failures say everything."""
        if self._witnesses.issuperset(self._addresses):
            return ALL_WITNESSES
        return advice_on(why for _, why in self._reasons.values())

    def why(self) -> str:
        """Return what is wrong with each address that failed, for a person to read."""
        if not self._reasons:
            return f"{self.current} could not be reached"
        return "; ".join(f"{address}: {why}" for address, (_, why) in self._reasons.items())


def _tcp_addresses(urls: Iterable[str]) -> tuple[Address, ...]:
    found = []
    for url in urls:
        try:
            address = parse_address(url)
        except SaAisError:
            continue
        if address.scheme == "tcp":
            found.append(address)
    return tuple(found)
