"""Which address a session tries next, when, and why the others failed.

Pure: it is told what happened and what time it is.
"""

from collections.abc import Iterable
from typing import Final

from ckpt_client.address import Address, parse_address
from ckpt_client.errors import SaAisError
from ckpt_protocol.limits import NODES_MAX

PAUSE_MIN_NS: Final = 10_000_000
PAUSE_MAX_NS: Final = 250_000_000
"""Between two rounds over all addresses; it doubles from the one to the other."""

HOW_TO_START: Final = "start one with: ckptd --node-id a --listen 127.0.0.1:7301"


class Route:
    """The addresses in the order they are tried: those given, then those the service told of."""

    def __init__(self, addresses: tuple[Address, ...]) -> None:
        if not addresses:
            raise AssertionError("a route without addresses")
        self._given = addresses
        self._addresses = addresses
        self._place = 0
        self._failures = 0
        self._pause_ns = PAUSE_MIN_NS
        self._reasons: dict[Address, tuple[int, str]] = {}
        self.connect_ns = 0
        """When `current` may be tried."""

    @property
    def current(self) -> Address:
        """The address in use, or the one to try next."""
        return self._addresses[self._place]

    @property
    def has_others(self) -> bool:
        """Whether there is anywhere else to go."""
        return len(self._addresses) > 1

    def succeeded(self) -> None:
        """The current address serves us: earlier failures are history."""
        self._failures = 0
        self._pause_ns = PAUSE_MIN_NS
        self._reasons.clear()

    def failed(self, now_ns: int, why: str, final_code: int = 0) -> None:
        """The current address failed: the next one is to be tried, after a pause once all have been.

        `final_code` is the SAF code where waiting will not help, 0 where it may.
        """
        self._reasons[self.current] = (final_code, why)
        self._failures += 1
        self._place = (self._place + 1) % len(self._addresses)
        if self._failures < len(self._addresses):
            self.connect_ns = now_ns
            return
        self.connect_ns = now_ns + self._pause_ns
        self._pause_ns = min(2 * self._pause_ns, PAUSE_MAX_NS)

    def verdict(self) -> int:
        """The code to fail with when every address failed for good, 0 while there is hope.

        A refusal by a daemon says more than that nothing listens elsewhere, so its code goes first.
        """
        codes = [self._reasons.get(address, (0, ""))[0] for address in self._addresses]
        return min(codes)

    def start_again(self, now_ns: int) -> None:
        """Forget a verdict: somebody asks anew."""
        self._failures = 0
        self._reasons.clear()
        self.connect_ns = now_ns

    def learn(self, urls: Iterable[str]) -> None:
        """Take the members' TCP addresses that the service told of as further places to go.

        Paths of unix sockets mean something else on each host, so they are not taken.
        """
        current = self.current
        learned = []
        for url in urls:
            try:
                address = parse_address(url)
            except SaAisError:
                continue
            if address.scheme == "tcp" and address not in self._given:
                learned.append(address)
        self._addresses = tuple(dict.fromkeys((*self._given, *learned[: 2 * NODES_MAX])))
        # The current address may be one that the service no longer tells of: keep it, we are on it.
        if current not in self._addresses:
            self._addresses = (*self._addresses, current)
        self._place = self._addresses.index(current)

    def why(self) -> str:
        """What is wrong with each address that failed, for a person to read."""
        if not self._reasons:
            return f"{self.current} was not reached"
        return "; ".join(f"{address}: {why}" for address, (_, why) in self._reasons.items())
