"""Seals of heartbeats: a secret that only the two ends of a first exchange know (ADR 23).

A heartbeat is a datagram, and anybody can send one that says that it is a peer's. So each is sealed with the
secret of the last exchange between its two nodes. Without a cluster key the secret comes from the two nonces
alone, which is enough against everybody who cannot read the connection.
"""

from collections import deque
from typing import Final

from ckpt_protocol.framing import FrameError
from ckpt_protocol.greeting import seal, unseal

AGREED_MAX: Final = 2
"""Secrets of links: the present one's and the one before, as a link comes up at one end first."""

OFFERED_MAX: Final = 2
"""Secrets of exchanges that we opened and that the peer may have taken for a link already."""


class Seals:
    """The secrets shared with one peer. `cluster_key` seals what goes out before there was any link."""

    def __init__(self, cluster_key: bytes) -> None:
        self._cluster_key = cluster_key
        self._agreed: deque[bytes] = deque(maxlen=AGREED_MAX)
        self._offered: deque[bytes] = deque(maxlen=OFFERED_MAX)

    def offer(self, secret: bytes) -> None:
        """An exchange is through that we opened to the peer's address; whether it becomes a link is open."""
        self._offered.append(secret)

    def agree(self, secret: bytes) -> None:
        """A link is up: from now on its secret seals what we send."""
        self._agreed.append(secret)

    def seal(self, datagram: bytes) -> bytes:
        """A heartbeat as it goes out."""
        return seal(self._agreed[-1] if self._agreed else self._cluster_key, datagram)

    def open(self, sealed: bytes) -> bytes | None:
        """The heartbeat within; None where no secret that is shared with this peer sealed it."""
        for secret in (*reversed(self._agreed), *reversed(self._offered)):
            try:
                return unseal(secret, sealed)
            except FrameError:
                continue
        return None
