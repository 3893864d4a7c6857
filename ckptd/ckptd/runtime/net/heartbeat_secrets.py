"""Signs heartbeats with a secret that only the two ends of a handshake know (ADR 23).

A heartbeat is a datagram, so any host can send one and claim to be a peer. Each heartbeat is therefore
signed with the secret of the last handshake between the two nodes. Without a cluster key that secret is
derived from the two nonces alone, which protects against anyone who cannot read the connection.
"""

from collections import deque
from typing import Final

from ckpt_protocol.errors import FrameError
from ckpt_protocol.handshake import sign, verify

AGREED_MAX: Final = 2
"""Secrets of links that we keep: the current link's and the previous one's. A new link comes up at one end
first, and until then the other end still signs with the previous secret."""

OFFERED_MAX: Final = 2
"""Secrets of handshakes that we opened and that are no link here yet; the peer may have accepted them as the
link already."""


class HeartbeatSecrets:
    """The secrets shared with one peer. Until the first link is up, `cluster_key` signs what we send."""

    def __init__(self, cluster_key: bytes) -> None:
        self._cluster_key = cluster_key
        self._agreed: deque[bytes] = deque(maxlen=AGREED_MAX)
        self._offered: deque[bytes] = deque(maxlen=OFFERED_MAX)

    def offer(self, secret: bytes) -> None:
        """Accept heartbeats signed with the secret of a handshake that we opened to the peer's address.

        It is not yet certain that this connection becomes the link.
        """
        self._offered.append(secret)

    def agree(self, secret: bytes) -> None:
        """Use the secret of a link that has come up: it signs what we send from now on."""
        self._agreed.append(secret)

    def sign(self, datagram: bytes) -> bytes:
        """Return a heartbeat with its signature."""
        return sign(self._agreed[-1] if self._agreed else self._cluster_key, datagram)

    def verify(self, signed: bytes) -> bytes | None:
        """Return the heartbeat without its signature; None if no secret shared with this peer signed it."""
        for secret in (*reversed(self._agreed), *reversed(self._offered)):
            try:
                return verify(secret, signed)
            except FrameError:
                continue
        return None
