"""The handshake of every connection: version, cluster, and proof of the cluster's key.

    opener                                        acceptor
    HELLO   versions, role, cluster, nonce   ->
                                             <-   WELCOME version, node, nonce, proof   or REFUSED
    PROOF   (only if WELCOME asks for it)    ->

The opener may send requests right after its PROOF.

When an opener says that it is a peer, the acceptor asks back. It opens a handshake to that
peer's configured address, `about` the nonce of the first one. The peer refuses it if it did
not open that first one.

A proof is the HMAC-SHA256, under the cluster's key, of who proves, the opener's role, the
cluster's name and both nonces. So neither side's proof can be replayed as the other's. Two
peers derive a secret from the same nonces and sign their heartbeats with it.
"""

import hmac
from collections.abc import Container
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.body_codec import bounded_array, pack_body
from ckpt_protocol.bounds_by_kind import BOUNDS
from ckpt_protocol.errors import FrameError
from ckpt_protocol.field_checks import octets, text, texts, whole
from ckpt_protocol.framing import HEADER_BYTES, Frame, encode_frame
from ckpt_protocol.limits import (
    CLUSTER_NAME_BYTES_MAX,
    HELLO_DATAGRAM_BYTES,
    INCARNATION_MAX,
    NODE_ID_BYTES_MAX,
    NODES_MAX,
    TEXT_BYTES_MAX,
    URL_BYTES_MAX,
    URLS_PER_NODE_MAX,
)
from ckpt_protocol.messages import PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Kind

MAGIC: Final = "ckptd"
NONCE_BYTES: Final = 16
PROOF_BYTES: Final = 32
ROLE_CLIENT: Final = 1
ROLE_PEER: Final = 2
ROLE_OPERATOR: Final = 3
"""An operator's tool: it sends DESCRIBE, OPERATE and PING, and attaches no session."""


TEXT_HEAD_BYTES: Final = 6
"""The most that msgpack needs around the text of a REFUSED."""


class HandshakeRejected(Exception):
    """The handshake failed: `code` is a SAF code, the text says why.

    `incarnation`: a later incarnation of the refused peer, which the other side knows; 0 if the reason is
    another one.
    """

    def __init__(self, code: int, why: str, incarnation: int = 0) -> None:
        super().__init__(why)
        self.code = code
        self.text = why
        self.incarnation = incarnation

    def frame(self, bytes_max: int = TEXT_BYTES_MAX) -> bytes:
        """Return the REFUSED frame for the other side.

        If it would exceed `bytes_max`, the text is cut and the incarnation left out.
        """
        body = pack_body([self.text, self.incarnation] if self.incarnation else [self.text])
        limit = bytes_max - HEADER_BYTES
        if len(body) > limit:
            why = self.text.encode()[: max(0, limit - TEXT_HEAD_BYTES)].decode(errors="ignore")
            body = pack_body([why]) if why else b""
        return encode_frame(Kind.REFUSED, self.code, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, body)


@dataclass(slots=True, frozen=True)
class Identity:
    """Who one side is: a node (`node_id` a name, `incarnation` new at every start) or a client ("" and 0)."""

    cluster: str
    key: bytes = field(default=b"", repr=False)
    node_id: str = ""
    incarnation: int = 0
    urls: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class PeerIdentity:
    """What is known about the other side after the handshake."""

    version: int
    role: int
    node_id: str
    incarnation: int
    urls: tuple[str, ...]
    nonce: bytes = field(default=b"", repr=False, compare=False)
    """The opener's nonce. It identifies this handshake."""
    about: bytes = field(default=b"", repr=False, compare=False)
    """The nonce of the handshake that the opener asks back about; b"" if it asks about none."""
    secret: bytes = field(default=b"", repr=False, compare=False)
    """Between peers: known only to the two ends of this handshake. It signs their heartbeats."""


def _proof(key: bytes, who: str, role: int, cluster: str, opener: bytes, acceptor: bytes) -> bytes:
    proved = pack_body([MAGIC, who, role, cluster, opener, acceptor])
    return hmac.digest(key, proved, "sha256")


def _secret(key: bytes, role: int, cluster: str, opener: bytes, acceptor: bytes) -> bytes:
    if role != ROLE_PEER:
        return b""
    return hmac.digest(key, pack_body([MAGIC, "heartbeats", cluster, opener, acceptor]), "sha256")


class Opener:
    """The side that connected. Send `hello()`, then pass the frame that comes back to `receive`."""

    def __init__(self, identity: Identity, role: int, nonce: bytes, about: bytes = b"") -> None:
        self.identity = identity
        self.role = role
        self.nonce = nonce
        self.about = about

    def hello(self, datagram: bool = False) -> bytes:
        """Return the frame to send first. As a datagram it is padded, so that WELCOME is not longer."""
        me = self.identity
        fields = [MAGIC, me.cluster, self.nonce, me.node_id, me.incarnation, list(me.urls)]
        if self.about or datagram:
            fields.append(self.about)
        if datagram:
            there = HEADER_BYTES + len(pack_body(fields))
            fields.append(bytes(max(0, HELLO_DATAGRAM_BYTES - there)))
        body = pack_body(fields)
        return encode_frame(Kind.HELLO, PROTOCOL_VERSION_MIN, PROTOCOL_VERSION_MAX, self.role, body)

    def receive(self, frame: Frame) -> tuple[PeerIdentity, bytes]:
        """Take WELCOME; return who answered and what to send now (possibly nothing).

        Raises: HandshakeRejected if the other side refused or cannot prove itself; FrameError.
        """
        if frame.kind == Kind.REFUSED:
            raise parse_refused(frame)
        if frame.kind != Kind.WELCOME:
            raise FrameError(f"a frame of kind {frame.kind} arrived before WELCOME")
        cluster, nonce, node_id, proof, urls = _parse_welcome(frame.body)
        me = self.identity
        if me.cluster and cluster != me.cluster:
            raise HandshakeRejected(codes.ACCESS, f"this is cluster {cluster!r}, not {me.cluster!r}")
        if not PROTOCOL_VERSION_MIN <= frame.a <= PROTOCOL_VERSION_MAX:
            raise HandshakeRejected(
                codes.VERSION,
                f"the other side chose protocol version {frame.a}, but this side supports at most "
                f"{PROTOCOL_VERSION_MAX}",
            )
        send = b""
        if me.key and frame.b:
            wanted = _proof(me.key, "acceptor", self.role, cluster, self.nonce, nonce)
            if not hmac.compare_digest(wanted, proof):
                raise HandshakeRejected(codes.ACCESS, f"node {node_id!r} does not have this cluster's key")
            send = encode_frame(
                Kind.PROOF, 0, 0, 0, _proof(me.key, "opener", self.role, cluster, self.nonce, nonce)
            )
        elif frame.b:
            raise HandshakeRejected(
                codes.ACCESS, f"cluster {cluster!r} requires a cluster key, but none is set here"
            )
        elif me.key:
            raise HandshakeRejected(codes.ACCESS, f"node {node_id!r} has no cluster key, but one is set here")
        incarnation = whole(frame.c, "an incarnation", INCARNATION_MAX)
        secret = _secret(me.key, self.role, cluster, self.nonce, nonce)
        return PeerIdentity(frame.a, ROLE_PEER, node_id, incarnation, urls, self.nonce, secret=secret), send


class Acceptor:
    """The side that was connected to. Pass each frame to `receive` until `peer` is set.

    `own_nonces`: the nonces of the exchanges that this side opened itself, for peers that ask back about one.
    """

    def __init__(self, identity: Identity, nonce: bytes, own_nonces: Container[bytes] = ()) -> None:
        self.identity = identity
        self.nonce = nonce
        self.own_nonces = own_nonces
        self.peer: PeerIdentity | None = None
        self._awaiting_proof: tuple[PeerIdentity, bytes] | None = None

    def receive(self, frame: Frame) -> bytes:
        """Take HELLO or PROOF; return what to send now.

        Raises: HandshakeRejected (send its `frame()`, then close); FrameError (close).
        """
        if self._awaiting_proof is not None:
            peer, wanted = self._awaiting_proof
            if frame.kind != Kind.PROOF or not hmac.compare_digest(wanted, frame.body):
                raise HandshakeRejected(codes.ACCESS, "the cluster key is missing or wrong")
            self.peer = peer
            return b""
        if frame.kind != Kind.HELLO:
            raise FrameError(f"a frame of kind {frame.kind} arrived before HELLO")
        cluster, nonce, node_id, incarnation, urls, about = _parse_hello(frame.body)
        me = self.identity
        if frame.a > PROTOCOL_VERSION_MAX or frame.b < PROTOCOL_VERSION_MIN:
            raise HandshakeRejected(
                codes.VERSION,
                f"this side speaks protocol versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}",
            )
        if frame.c not in (ROLE_CLIENT, ROLE_PEER, ROLE_OPERATOR):
            raise FrameError(f"HELLO has the unknown role {frame.c}")
        if cluster != me.cluster and (cluster or frame.c == ROLE_PEER):
            raise HandshakeRejected(codes.ACCESS, f"this is cluster {me.cluster!r}, not {cluster!r}")
        if frame.c == ROLE_PEER and (not node_id or node_id == me.node_id):
            raise HandshakeRejected(
                codes.ACCESS, f"a peer that claims to be {node_id!r} connected to node {me.node_id!r}"
            )
        if about and about not in self.own_nonces:
            raise HandshakeRejected(codes.ACCESS, f"node {me.node_id!r} did not open that connection")
        version = min(frame.b, PROTOCOL_VERSION_MAX)
        secret = _secret(me.key, frame.c, me.cluster, nonce, self.nonce)
        peer = PeerIdentity(version, frame.c, node_id, incarnation, urls, nonce, about, secret)
        proof = b""
        if me.key:
            proof = _proof(me.key, "acceptor", frame.c, me.cluster, nonce, self.nonce)
            wanted = _proof(me.key, "opener", frame.c, me.cluster, nonce, self.nonce)
            self._awaiting_proof = (peer, wanted)
        else:
            self.peer = peer
        body = pack_body([me.cluster, self.nonce, me.node_id, proof, list(me.urls)])
        return encode_frame(Kind.WELCOME, version, 1 if me.key else 0, me.incarnation, body)


def _parse_hello(body: bytes) -> tuple[str, bytes, str, int, tuple[str, ...], bytes]:
    magic, cluster, nonce, node_id, incarnation, urls, *more = bounded_array(body, BOUNDS[Kind.HELLO], 6)
    if type(magic) is not str or magic != MAGIC or len(octets(nonce, "a nonce", NONCE_BYTES)) != NONCE_BYTES:
        raise FrameError("this is not a HELLO of ckptd")
    return (
        text(cluster, "a cluster's name", CLUSTER_NAME_BYTES_MAX),
        nonce,
        text(node_id, "a node's id", NODE_ID_BYTES_MAX),
        whole(incarnation, "an incarnation", INCARNATION_MAX),
        texts(urls, "an address", URLS_PER_NODE_MAX, URL_BYTES_MAX),
        octets(more[0] if more else b"", "the nonce of the connection that is meant", NONCE_BYTES),
    )


def _parse_welcome(body: bytes) -> tuple[str, bytes, str, bytes, tuple[str, ...]]:
    cluster, nonce, node_id, proof, urls = bounded_array(body, BOUNDS[Kind.WELCOME], 5)[:5]
    return (
        text(cluster, "a cluster's name", CLUSTER_NAME_BYTES_MAX),
        octets(nonce, "a nonce", NONCE_BYTES),
        text(node_id, "a node's id", NODE_ID_BYTES_MAX),
        octets(proof, "a proof", PROOF_BYTES),
        texts(urls, "an address", URLS_PER_NODE_MAX, URL_BYTES_MAX),
    )


def parse_refused(frame: Frame) -> HandshakeRejected:
    """Return what a REFUSED says, as the exception to raise. Raises: FrameError."""
    if not frame.body:
        return HandshakeRejected(frame.a, "it did not give a reason")
    why, *more = bounded_array(frame.body, BOUNDS[Kind.REFUSED], 1)
    later = whole(more[0] if more else 0, "a later incarnation", INCARNATION_MAX)
    return HandshakeRejected(frame.a, text(why, "the reason of a refusal", TEXT_BYTES_MAX), later)


SIGNATURE_BYTES: Final = 16


@lru_cache(maxsize=4 * NODES_MAX)
def _keyed_hmac(key: bytes) -> hmac.HMAC:
    """Return the HMAC of a key before any data. Starting one costs twice what the rest of it does."""
    return hmac.new(key, digestmod="sha256")


def _signature(key: bytes, datagram: bytes) -> bytes:
    digest = _keyed_hmac(key).copy()
    digest.update(datagram)
    return digest.digest()[:SIGNATURE_BYTES]


def sign(key: bytes, datagram: bytes) -> bytes:
    """Return a datagram between daemons with its authentication appended; unchanged if there is no key."""
    return datagram + _signature(key, datagram) if key else datagram


def verify(key: bytes, signed: bytes) -> bytes:
    """Return the datagram inside. Raises: FrameError if its authentication is missing or wrong."""
    if not key:
        return signed
    datagram, signature = signed[:-SIGNATURE_BYTES], signed[-SIGNATURE_BYTES:]
    if not hmac.compare_digest(_signature(key, datagram), signature):
        raise FrameError("a datagram was not signed with our key")
    return datagram
