"""A small but correct service for the client's tests: real sockets, real frames, sections in a dict.

Several nodes share one `FakeService`, as a cluster shares its state: sessions, handles, checkpoints, and the
answers by which a repeated update is recognised. A node calls `FakeNode.misbehave` before it serves a
request, so a test can break a link, or delay or garble an answer, at the moment that it needs.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ckpt_protocol import codes
from ckpt_protocol.body_codec import unpack_body
from ckpt_protocol.bounds_by_kind import FROM_CLIENT
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder, decode_datagram
from ckpt_protocol.handshake import Acceptor, HandshakeRejected, Identity
from ckpt_protocol.limits import UNATTACHED_BODY_BYTES_MAX
from ckpt_protocol.messages import Kind, Op, answer_error, answer_ok, encode_answer

NONCE = b"n" * 16


class Refusal(Exception):
    """An answer with a code."""

    def __init__(self, code: int, text: str = "", index: int = -1) -> None:
        super().__init__(text)
        self.code, self.text, self.index = code, text, index


@dataclass
class FakeCheckpoint:
    """One checkpoint; `applied` counts the updates that were carried out."""

    name: bytes
    attributes: list[int]
    creation_id: int
    active: str | None
    sections: dict[bytes, tuple[bytes, int]] = field(default_factory=dict)
    corrupted: set[bytes] = field(default_factory=set)
    applied: int = 0
    opens: int = 0
    unlinked: bool = False
    former: list[list[int]] = field(default_factory=list)


@dataclass
class FakeSession:
    """One session: its node, its generation, what it opened, and its answers for repeated requests."""

    generation: int
    node_id: str
    opens: dict[int, tuple[FakeCheckpoint, int]] = field(default_factory=dict)
    answers: dict[int, bytes] = field(default_factory=dict)
    lowest: int = 0


class FakeService:
    """The state of a cluster. `page_sections`: how many sections one page of an iteration holds."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.sessions: dict[int, FakeSession] = {}
        self.ended: set[int] = set()
        self.checkpoints: dict[bytes, FakeCheckpoint] = {}
        self.nodes: dict[str, FakeNode] = {}
        self.page_sections = 3
        self.applied_twice: list[tuple[int, int]] = []
        self._applied: set[tuple[int, int]] = set()
        self._creations = 0

    def end_session(self, session_id: int) -> None:
        """End a session, as when its grace is over."""
        with self.lock:
            session = self.sessions.pop(session_id, None)
            self.ended.add(session_id)
            if session is not None:
                for checkpoint, _ in session.opens.values():
                    checkpoint.opens -= 1

    def serve(self, node: "FakeNode", session_id: int, frame: Frame) -> bytes:
        """Return the answer's body. A change is applied once, however often its request comes."""
        with self.lock:
            try:
                return self._serve(node, session_id, frame)
            except Refusal as refusal:
                return answer_error(refusal.code, refusal.text, refusal.index)

    def _serve(self, node: "FakeNode", session_id: int, frame: Frame) -> bytes:
        if frame.kind == Kind.PING:
            return answer_ok()
        if frame.kind == Kind.DESCRIBE:
            what = unpack_body(frame.body)[0]
            return answer_ok({"node_id": node.node_id, "serving": True} if what == "cluster" else [])
        session = self.sessions.get(session_id)
        if session is None:
            raise Refusal(codes.BAD_HANDLE, "no such session")
        session.lowest = max(session.lowest, frame.c)
        for number in [number for number in session.answers if number < session.lowest]:
            del session.answers[number]
        if frame.kind in (Kind.READ, Kind.ITERATE, Kind.STATUS):
            return self._look(node, session, frame)
        if frame.a in session.answers:
            return session.answers[frame.a]
        if frame.a < session.lowest:
            raise Refusal(codes.TIMEOUT, "forgotten")
        try:
            body = self._change(node, session_id, session, frame)
        except Refusal as refusal:
            if refusal.code == codes.TRY_AGAIN:
                raise
            body = answer_error(refusal.code, refusal.text, refusal.index)
        else:
            if (session_id, frame.a) in self._applied:
                self.applied_twice.append((session_id, frame.a))
            self._applied.add((session_id, frame.a))
        session.answers[frame.a] = body
        return body

    def _opened(self, session: FakeSession, frame: Frame) -> FakeCheckpoint:
        if frame.b not in session.opens:
            raise Refusal(codes.BAD_HANDLE, "this handle is not open")
        return session.opens[frame.b][0]

    def _with_active(self, session: FakeSession, frame: Frame) -> FakeCheckpoint:
        checkpoint = self._opened(session, frame)
        if checkpoint.active is None:
            raise Refusal(codes.NOT_EXIST, "there is no active replica")
        return checkpoint

    def _look(self, node: "FakeNode", session: FakeSession, frame: Frame) -> bytes:
        fields = unpack_body(frame.body)
        checkpoint = self._with_active(session, frame)
        if frame.kind == Kind.STATUS:
            memory = sum(len(content) for content, _ in checkpoint.sections.values())
            status = [checkpoint.attributes, len(checkpoint.sections), memory, checkpoint.active]
            return answer_ok([*status, [[node.node_id, True]], checkpoint.opens, checkpoint.unlinked])
        if frame.kind == Kind.READ:
            values = []
            for index, (section_id, offset, size) in enumerate(fields):
                if section_id not in checkpoint.sections:
                    raise Refusal(codes.NOT_EXIST, f"there is no section {section_id!r}", index)
                content = checkpoint.sections[section_id][0]
                values.append(content[offset : None if size is None else offset + size])
            return answer_ok(values)
        _, _, after, with_values = fields
        ids = sorted(i for i in checkpoint.sections if after is None or i > after)
        page, rest = ids[: self.page_sections], ids[self.page_sections :]
        described = []
        for section_id in page:
            content, expiration = checkpoint.sections[section_id]
            bad = section_id in checkpoint.corrupted
            value = content if with_values and not bad else None
            described.append([section_id, expiration, len(content), 2 if bad else 1, 5, value])
        return answer_ok([described, page[-1] if rest else None])

    def _change(self, node: "FakeNode", session_id: int, session: FakeSession, frame: Frame) -> bytes:
        fields = unpack_body(frame.body)
        match frame.kind:
            case Kind.DETACH:
                self.end_session(session_id)
            case Kind.OPEN:
                return self._open(node, session, frame.a, fields)
            case Kind.CLOSE:
                self._opened(session, frame).opens -= 1
                del session.opens[frame.b]
            case Kind.UNLINK:
                checkpoint = self.checkpoints.get(fields[0])
                if checkpoint is None or fields[1:] not in ([], [checkpoint.creation_id]):
                    raise Refusal(codes.NOT_EXIST, "no such checkpoint")
                del self.checkpoints[fields[0]]
                checkpoint.unlinked = True
            case Kind.ACTIVE_SET:
                checkpoint = self._opened(session, frame)
                if checkpoint.attributes[0] & 1 or not checkpoint.attributes[0] & 8:
                    raise Refusal(codes.BAD_OPERATION, "not asynchronous and collocated")
                if checkpoint.active is None or not fields[0]:
                    checkpoint.active = node.node_id
            case Kind.SYNCHRONIZE:
                if self._with_active(session, frame).attributes[0] & 1:
                    raise Refusal(codes.BAD_OPERATION, "synchronous")
            case Kind.UPDATE:
                checkpoint = self._with_active(session, frame)
                if not session.opens[frame.b][1] & 2:
                    raise Refusal(codes.ACCESS, "the handle was not opened for writing")
                if fields[0][0] == Op.RESIZE:
                    return self._resize(checkpoint, fields[0])
                self._update(checkpoint, fields)
            case _:
                raise Refusal(codes.NOT_SUPPORTED)
        return answer_ok()

    def _open(self, node: "FakeNode", session: FakeSession, number: int, fields: list[Any]) -> bytes:
        name, flags, attributes, _, *grow = fields
        checkpoint = self.checkpoints.get(name)
        if checkpoint is None:
            if attributes is None:
                raise Refusal(codes.NOT_EXIST, "no such checkpoint")
            if attributes[0] & 7 not in (1, 2, 4) or attributes[0] > 15:
                raise Refusal(codes.INVALID_PARAM, "not one update flag")
            self._creations += 1
            active = None if attributes[0] & 8 and not attributes[0] & 1 else node.node_id
            checkpoint = FakeCheckpoint(name, attributes, self._creations, active)
            if attributes[3] == 1:
                checkpoint.sections[b""] = (b"", SA_TIME_END)
            self.checkpoints[name] = checkpoint
        elif attributes not in (None, checkpoint.attributes, *checkpoint.former) and grow != [True]:
            raise Refusal(codes.EXIST, "exists with different creation attributes")
        checkpoint.opens += 1
        session.opens[number] = (checkpoint, flags)
        return answer_ok([number, checkpoint.creation_id, checkpoint.attributes])

    def _resize(self, checkpoint: FakeCheckpoint, op: list[Any]) -> bytes:
        _, *asked, at_least = op
        flags, _, retention, *now = checkpoint.attributes
        limits = [old if new is None else new for old, new in zip(now, asked, strict=True)]
        if at_least:
            limits = [max(pair) for pair in zip(now, limits, strict=True)]
        if len(checkpoint.sections) > limits[0]:
            raise Refusal(codes.NO_SPACE, f"there are {len(checkpoint.sections)} sections")
        checkpoint.former.append(checkpoint.attributes)
        checkpoint.attributes = [flags, limits[0] * limits[1], retention, *limits]
        return answer_ok(limits)

    def _update(self, checkpoint: FakeCheckpoint, ops: list[Any]) -> None:
        sections = dict(checkpoint.sections)
        for index, op in enumerate(ops):
            old = sections.get(op[1])
            if old is None and op[0] == Op.DELETE:
                raise Refusal(codes.NOT_EXIST, "no such section", index)
            if old is None and op[0] == Op.REMOVE:
                continue
            if old is None and len(sections) >= checkpoint.attributes[3]:
                raise Refusal(codes.NO_SPACE, "the table is full", index)
            if op[0] in (Op.PUT, Op.PATCH):
                content = op[2] if op[0] == Op.PUT else op[3]
                if len(content) > checkpoint.attributes[4]:
                    text = f"{len(content)} bytes exceed maxSectionSize, which is {checkpoint.attributes[4]}"
                    raise Refusal(codes.INVALID_PARAM, text, index)
            if op[0] in (Op.DELETE, Op.REMOVE):
                del sections[op[1]]
            elif op[0] == Op.PUT:
                sections[op[1]] = (op[2], op[3] or (old[1] if old else SA_TIME_END))
            elif op[0] == Op.PATCH:
                held = old[0] if old else b""
                sections[op[1]] = (
                    op[3] + held[len(op[3]) :],
                    op[4] or (old[1] if old else SA_TIME_END),
                )
            else:
                raise Refusal(codes.INVALID_PARAM, "unknown operation", index)
        checkpoint.sections = sections
        checkpoint.applied += 1

    def attach(self, node: "FakeNode", link: "FakeLink", frame: Frame) -> bytes:
        """ATTACH: attach the session to the node, which accepts large frames on that link from now on."""
        with self.lock:
            session_id, generation = frame.b, frame.c
            session = self.sessions.get(session_id)
            if session is None:
                if not unpack_body(frame.body)[0] or session_id in self.ended:
                    return answer_error(
                        codes.BAD_HANDLE, "this session has ended, because its grace time is over"
                    )
                session = self.sessions[session_id] = FakeSession(generation, node.node_id)
            if generation < session.generation:
                return answer_error(codes.BAD_HANDLE, "attached on another connection since")
            session.generation, session.node_id = generation, node.node_id
            link.decoder.body_limits = FROM_CLIENT
            members = [[name, [other.url]] for name, other in sorted(self.nodes.items()) if not other.hidden]
            return answer_ok([node.node_id, members])


Misbehaviour = Callable[["FakeNode", "FakeLink", Frame], bool]
"""Called before a request is served; returns True if the test has dealt with it."""


class FakeLink:
    """One client's link: a stream's socket, or an address at the node's datagram socket."""

    def __init__(self, node: "FakeNode", sock: socket.socket, where: Any = None) -> None:
        self.node, self.sock, self.where = node, sock, where
        self.decoder = FrameDecoder((UNATTACHED_BODY_BYTES_MAX,) * 256)
        self.acceptor: Acceptor | None = Acceptor(node.identity, NONCE)
        self.session_id = 0

    def send(self, data: bytes) -> None:
        """Send, even if the other side is gone."""
        with contextlib.suppress(OSError):
            if self.where is None:
                self.sock.sendall(data)
            else:
                self.sock.sendto(data, self.where)

    def answer(self, number: int, body: bytes) -> None:
        """Send an ANSWER."""
        self.send(encode_answer(number, 1, 1, body))

    def cut(self) -> None:
        """End the link, as the loss of a node does."""
        if self.where is None:
            self.node.forget(self)
        else:
            self.node.addresses.pop(self.where, None)

    def serve(self, frame: Frame) -> None:
        """Answer as a daemon would."""
        if frame.kind == Kind.ATTACH:
            self.session_id = frame.b
            self.answer(frame.a, self.node.service.attach(self.node, self, frame))
        else:
            self.answer(frame.a, self.node.service.serve(self.node, self.session_id, frame))


class FakeNode:
    """One node's listener, served by one thread.

    `url` is where it listens; `hidden` keeps it out of the answers to ATTACH. It receives `piece_bytes` at a
    time, and then pauses.
    """

    def __init__(
        self,
        service: FakeService,
        node_id: str = "a",
        scheme: str = "unix",
        path: str = "",
        key: bytes = b"",
        cluster: str = "test",
    ) -> None:
        self.service, self.node_id, self.scheme = service, node_id, scheme
        self.identity = Identity(cluster, key, node_id, 1)
        self.misbehave: Misbehaviour | None = None
        self.greets: Callable[[FakeLink, bytes], bool] | None = None
        self.hidden = True
        self.piece_bytes, self.pause_s = 1 << 18, 0.0
        self.received: list[Frame] = []
        self.addresses: dict[Any, FakeLink] = {}
        self._selector = selectors.DefaultSelector()
        if scheme == "unix":
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(path)
            self.url = f"unix://{path}"
        else:
            kind = socket.SOCK_STREAM if scheme == "tcp" else socket.SOCK_DGRAM
            self._listener = socket.socket(socket.AF_INET, kind)
            self._listener.bind(("127.0.0.1", 0))
            self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        if scheme != "udp":
            self._listener.listen(16)
        self._waker, self._wakee = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._selector.register(self._wakee, selectors.EVENT_READ, None)
        self._running = True
        service.nodes[node_id] = self
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def kinds(self) -> list[int]:
        """Return the kinds of the requests that came, in order."""
        return [frame.kind for frame in self.received]

    def stop(self) -> None:
        """Lose the node: its listener and its links end."""
        self._running = False
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        self._thread.join()
        self._waker.close()

    def die(self) -> None:
        """Lose the node in the middle of its work; call this in its own thread."""
        self._running = False

    def drop_links(self) -> None:
        """End every link, as a restart does; from any thread."""
        self.addresses.clear()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                with contextlib.suppress(OSError):
                    key.data.sock.shutdown(socket.SHUT_RDWR)

    def forget(self, link: FakeLink) -> None:
        """Drop a stream's link."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(link.sock)
        link.sock.close()

    def _run(self) -> None:
        try:
            while self._running:
                for key, _ in self._selector.select():
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.data is not None:
                        self._receive(key.data)
        finally:
            for key in tuple(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()

    def _accept(self) -> None:
        if self.scheme != "udp":
            sock, _ = self._listener.accept()
            if self.scheme == "tcp":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ, FakeLink(self, sock))
            return
        try:
            data, where = self._listener.recvfrom(65535)
        except ConnectionError:
            return
        frame = decode_datagram(data)
        if frame.kind == Kind.HELLO:
            self.addresses[where] = FakeLink(self, self._listener, where)
        link = self.addresses.get(where)
        if link is None:
            stranger = FakeLink(self, self._listener, where)
            stranger.send(HandshakeRejected(codes.BAD_HANDLE, "send HELLO first").frame())
        else:
            self._take(link, frame)

    def _receive(self, link: FakeLink) -> None:
        try:
            data = link.sock.recv(self.piece_bytes)
            time.sleep(self.pause_s)
        except OSError:
            data = b""
        if not data:
            self.forget(link)
            return
        if self.greets is not None and self.greets(link, data):
            return
        try:
            for frame in link.decoder.feed(data):
                self._take(link, frame)
        except FrameError:
            self.forget(link)

    def _take(self, link: FakeLink, frame: Frame) -> None:
        if link.acceptor is not None and link.acceptor.peer is None:
            try:
                link.send(link.acceptor.receive(frame))
            except HandshakeRejected as refused:
                link.send(refused.frame())
                link.cut()
            return
        self.received.append(frame)
        if self.misbehave is None or not self.misbehave(self, link, frame):
            link.serve(frame)
