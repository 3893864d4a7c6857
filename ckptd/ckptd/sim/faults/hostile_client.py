"""A hostile client: it attaches, opens checkpoints of its own, and sends whatever may hurt a node.

Among other things it sends frames that no client may send, spoiled fields, handles that it never got, and
bursts. It uses names of its own, because the histories of the other clients are checked. It may break only
what is its own: the other clients' histories, the time-outs and the convergence must be the same as without
it.
"""

from random import Random
from typing import Any, Final

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind, Op
from ckptd.core.events import ClientConnected, ClientLost, ClientReceived
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.faults.spoiling import spoil
from ckptd.sim.world.host import Host
from ckptd.sim.world.world import World

FIRST_LINK: Final = 2**32
"""Its links are numbered from here, so that no other client's link has the same number."""

NAMES: Final = (b"hostile", b"hostile too")
_BURST: Final = (1, 1, 1, 2, 30)
_SPOILED: Final = 0.8
_MOVES: Final = 0.05
_ATTRIBUTES: Final = ((1, 2), (1, 4), (2, 8))
_KINDS: Final = tuple(value for name, value in vars(Kind).items() if name.isupper())


class HostileClient:
    """One hostile client. It has its own random generator and acts at times of its own."""

    def __init__(self, world: World, hosts: dict[str, Host]) -> None:
        self.world = world
        self.hosts = hosts
        self.random = Random(f"hostile {world.options.seed}")
        self.on = False
        self.sent = 0
        self._number = FIRST_LINK
        self._node_id = ""
        self._incarnation = 0

    def begin(self) -> None:
        """Start to send."""
        self.on = True
        self._later()

    def end(self) -> None:
        """Send nothing more, and disconnect."""
        self.on = False
        self._leave()

    def _later(self) -> None:
        wait_ns = self.random.choice((MILLISECOND_NS, 10 * MILLISECOND_NS, 60 * MILLISECOND_NS))
        self.world.after(self.random.randint(wait_ns // 2, wait_ns), self._act)

    def _act(self) -> None:
        if not self.on:
            return
        self._later()
        host = self._host()
        if host is None or self.random.random() < _MOVES:
            self._connect()
        else:
            self._send(host, [self._draw() for _ in range(self.random.choice(_BURST))])

    def _host(self) -> Host | None:
        """Return the host that the link leads to, if the same process still runs."""
        host = self.hosts.get(self._node_id)
        return host if host is not None and host.running and host.incarnation == self._incarnation else None

    def _leave(self) -> None:
        host = self._host()
        if host is not None:
            host.deliver(ClientLost(self._number, self.random.random() < 0.5))
        self._node_id = ""

    def _connect(self) -> None:
        """Open a new link, and mostly a session with open handles 2 and 3 on it."""
        self._leave()
        running = [host for host in self.hosts.values() if host.running and not host.paused]
        if not running:
            return
        host = self.random.choice(running)
        self._number += 1
        self._node_id, self._incarnation = host.node_id, host.incarnation
        host.deliver(ClientConnected(self._number))
        if self.random.random() < 0.9:
            session = self.random.getrandbits(62) + 1
            frames = [Frame(Kind.ATTACH, 1, session, 1, pack_body([True]))]
            for number, name in enumerate(NAMES, 2):
                frames.append(Frame(Kind.OPEN, number, 0, number, pack_body(self._open(name))))
            self._send(host, frames)

    def _send(self, host: Host, frames: list[Frame]) -> None:
        """Deliver frames as the runtime does: a stream that has no valid frames ends the connection."""
        try:
            arrived = FrameDecoder().feed(b"".join(encode_frame(*frame) for frame in frames))
        except FrameError:
            self._leave()
            return
        self.sent += len(arrived)
        host.deliver(ClientReceived(self._number, arrived))

    # -- what it sends

    def _open(self, name: bytes) -> list[Any]:
        flags, sections = self.random.choice(_ATTRIBUTES)
        return [name, 7, [flags, sections * 1000, 10 * MILLISECOND_NS, sections, 1000, 16], False]

    def _draw(self) -> Frame:
        kind, body = self.random.choice(self._requests())
        number = self.random.choice((4, 5, 6, self.random.getrandbits(20)))
        handle = self.random.choice((0, 2, 2, 2, 3, 3, 3, 99))
        frame = Frame(kind, number, handle, self.random.choice((1, number)), pack_body(body))
        if self.random.random() >= _SPOILED:
            return frame
        spoiled = spoil(self.random, frame, _KINDS)
        # At present any client may send operator commands, and the node would carry this one out.
        return frame if spoiled.kind == Kind.OPERATE else spoiled

    def _requests(self) -> list[tuple[int, list[Any]]]:
        never_ns = 2**62
        put = [Op.PUT, b"k", bytes(self.random.choice((1, 100, 1000))), None]
        lead = [Op.LEAD, 2, 7, SECOND_NS, True, True, "hostile", "host", 1]
        return [
            (Kind.UPDATE, [put]),
            (Kind.UPDATE, [lead]),
            (Kind.UPDATE, [put, [Op.TOKEN, 1, 9, 7, 0]]),
            (Kind.UPDATE, [[Op.RESIGN, 2, None]]),
            (Kind.UPDATE, [[Op.REVOKE, 1, 9]]),
            (Kind.LEADER, [2, 1, 9, True]),
            (Kind.LEADER_TRACK, [2, 0]),
            (Kind.UPDATE, [put, [Op.PATCH, b"l", 900, b"x", None], [Op.CREATE, b"", never_ns, b"new"]]),
            (Kind.UPDATE, [[Op.DELETE, b"k"], [Op.WRITE, b"l", 3, b"y"]]),
            (Kind.UPDATE, [[Op.EXPIRATION_SET, b"l", never_ns]]),
            (Kind.READ, [[b"k", 0, None], [b"l", 1, 2]]),
            (Kind.ITERATE, [SA_CKPT_SECTIONS_ANY, 0, None, True]),
            (Kind.TRACK, [None, 0]),
            (Kind.TRACK, [(1 << 40) + 1, 0]),
            (Kind.STATUS, []),
            (Kind.SYNCHRONIZE, []),
            (Kind.DESCRIBE, ["cluster"]),
            (Kind.PING, []),
            (Kind.OPEN, self._open(self.random.choice(NAMES))),
            (Kind.CLOSE, []),
            (Kind.UNLINK, [self.random.choice(NAMES)]),
            (Kind.RETENTION_SET, [SECOND_NS]),
            (Kind.ACTIVE_SET, [True]),
            (Kind.ATTACH, [self.random.random() < 0.5]),
            (Kind.DETACH, []),
        ]
