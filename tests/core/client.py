"""A client for the scenario tests: it sends frames, takes answers, and on its own only repeats TRY_AGAIN."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import OK, TRY_AGAIN
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_CREATE,
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import decode_answer
from ckptd.sim.world.client_links import ClientLink

if TYPE_CHECKING:
    from tests.core.cluster import Cluster

READ_WRITE = SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE
PAUSE_MS = 20


@dataclass(slots=True, frozen=True)
class Answer:
    """One answer, decoded."""

    code: int
    payload: Any
    index: int
    text: str


class Call:
    """A request in progress; `answers` are all that came for it, and the first of them counts."""

    def __init__(self, number: int, kind: int, handle: int, body: bytes) -> None:
        self.number = number
        self.kind = kind
        self.handle = handle
        self.body = body
        self.answers: list[Answer] = []

    @property
    def answer(self) -> Answer | None:
        return self.answers[0] if self.answers else None

    @property
    def code(self) -> int | None:
        """The answer's code; None while there is none."""
        return self.answers[0].code if self.answers else None


class Client:
    """One session. A client that lost its node calls `move`."""

    def __init__(self, cluster: "Cluster", session: int) -> None:
        self.cluster = cluster
        self.session = session
        self.node_id = ""
        self.link = 0
        self.generation = 0
        self.attached = False
        self.numbers = 0
        self.calls: dict[int, Call] = {}

    # -- links

    def begin_attach(self, node_id: str) -> Call:
        """Connect to a node, and send ATTACH."""
        self.node_id = node_id
        self.link = self.cluster.connect_client(self, node_id)
        self.generation += 1
        fresh = not self.attached
        number = self._next()
        call = self.calls[number] = Call(number, Kind.ATTACH, self.session, pack_body([fresh]))
        self.send(call, self.generation)
        return call

    def attach(self, node_id: str) -> Answer:
        """Connect to a node, and attach the session to it."""
        call = self.begin_attach(node_id)
        answer = self._end(call, third=self.generation)
        self.attached = self.attached or answer.code == OK
        return answer

    def move(self, node_id: str) -> None:
        """Attach the session to another node, with all that is open, and repeat there what is unanswered."""
        unanswered = [call for call in self.calls.values() if not call.answers]
        answer = self.attach(node_id)
        assert answer.code == OK, answer
        for call in unanswered:
            self.send(call)

    def operate(self, node_id: str, said: list[str]) -> Answer:
        """Send an operator command, on a connection without a session."""
        return self.end(self.begin_operate(node_id, said))

    def begin_operate(self, node_id: str, said: list[str]) -> Call:
        """Send an operator command without waiting for the answer."""
        self.node_id = node_id
        self.link = self.cluster.connect_client(self, node_id)
        return self.begin(Kind.OPERATE, 0, said)

    def describe(self, node_id: str) -> Any:
        """Return a node's description of the cluster, asked on a connection without a session."""
        self.node_id = node_id
        self.link = self.cluster.connect_client(self, node_id)
        return self.end(self.begin(Kind.DESCRIBE, 0, ["cluster"])).payload

    def disconnect(self, process_dead: bool = False) -> None:
        """End the link, as the death of a client does; the session's grace begins."""
        self.cluster.lose_client(self.link, process_dead)
        self.node_id, self.link = "", 0

    def on_connected(self, link: ClientLink) -> None:
        raise AssertionError("its links are connected when they are made")

    def on_lost(self, link: ClientLink | None) -> None:
        if link is not None and link.number == self.link:
            self.node_id, self.link = "", 0

    def on_received(self, link: ClientLink, data: bytes) -> None:
        """Take bytes from the node. Drop those of an older link, since its socket is closed."""
        if link.number != self.link:
            return
        for frame in FrameDecoder().feed(data):
            assert frame.kind == Kind.ANSWER, frame
            self.calls[frame.a].answers.append(Answer(*decode_answer(frame.body)))

    # -- requests

    def _next(self) -> int:
        self.numbers += 1
        return self.numbers

    def _lowest(self) -> int:
        return min(
            (call.number for call in self.calls.values() if not call.answers), default=self.numbers + 1
        )

    def send(self, call: Call, third: int = 0) -> None:
        """Send a request, or repeat it."""
        third = third or min(call.number, self._lowest())
        data = encode_frame(call.kind, call.number, call.handle, third, call.body)
        self.cluster.send_to_node(self.link, data)

    def begin(self, kind: int, handle: int = 0, fields: Any = ()) -> Call:
        """Send a request without waiting for the answer."""
        number = self._next()
        call = self.calls[number] = Call(number, kind, handle, pack_body(list(fields)))
        self.send(call)
        return call

    def call(self, kind: int, handle: int = 0, fields: Any = ()) -> Answer:
        """Make a request, and return its answer; repeat it after TRY_AGAIN."""
        return self._end(self.begin(kind, handle, fields))

    def end(self, call: Call) -> Answer:
        """Wait for the answer to a request that was sent."""
        return self._end(call)

    def _end(self, call: Call, third: int = 0) -> Answer:
        while True:
            self.cluster.until(lambda: call.answers)
            if call.answers[0].code != TRY_AGAIN:
                return call.answers[0]
            call.answers.clear()
            self.cluster.run(PAUSE_MS)
            self.send(call, third)

    # -- the service

    def open(
        self,
        name: bytes = b"x",
        flags: int = SA_CKPT_WR_ALL_REPLICAS,
        retention_ns: int = SA_TIME_END,
        mode: int = READ_WRITE,
        sections_max: int = 100,
        section_bytes_max: int = 4096,
        section_id_bytes_max: int = 64,
    ) -> "Opened":
        """Open a checkpoint; create it if it is missing."""
        attributes = [
            flags,
            sections_max * section_bytes_max,
            retention_ns,
            sections_max,
            section_bytes_max,
            section_id_bytes_max,
        ]
        fields = [name, mode | SA_CKPT_CHECKPOINT_CREATE, attributes, True]
        return Opened(self, self.call(Kind.OPEN, 0, fields))

    def open_existing(self, name: bytes = b"x", mode: int = READ_WRITE) -> "Opened":
        """Open a checkpoint that exists."""
        return Opened(self, self.call(Kind.OPEN, 0, [name, mode, None, False]))

    def try_open(self, name: bytes = b"x", mode: int = READ_WRITE) -> Answer:
        """Open a checkpoint that may not exist."""
        return self.call(Kind.OPEN, 0, [name, mode, None, False])

    def unlink(self, name: bytes = b"x") -> Answer:
        return self.call(Kind.UNLINK, 0, [name])


class Opened:
    """An open handle. Its methods fail unless the call succeeds; those with `try_` return the answer."""

    def __init__(self, client: Client, answer: Answer) -> None:
        assert answer.code == OK, answer
        self.client = client
        self.handle, self.creation_id, self.attributes = answer.payload[:3]

    def begin(self, kind: int, *fields: Any) -> Call:
        return self.client.begin(kind, self.handle, fields)

    def call(self, kind: int, *fields: Any) -> Answer:
        return self.client.call(kind, self.handle, fields)

    def begin_write(self, section_id: bytes, content: bytes) -> Call:
        return self.begin(Kind.UPDATE, [Op.PUT, section_id, content, None])

    def begin_read(self, *section_ids: bytes) -> Call:
        return self.begin(Kind.READ, *([section_id, 0, None] for section_id in section_ids))

    def try_write(self, section_id: bytes, content: bytes) -> Answer:
        return self.call(Kind.UPDATE, [Op.PUT, section_id, content, None])

    def try_read(self, *section_ids: bytes) -> Answer:
        return self.call(Kind.READ, *([section_id, 0, None] for section_id in section_ids))

    def try_update(self, *ops: list[Any]) -> Answer:
        return self.call(Kind.UPDATE, *ops)

    def write(self, section_id: bytes, content: bytes) -> None:
        self.update([Op.PUT, section_id, content, None])

    def read(self, section_id: bytes) -> bytes:
        answer = self.try_read(section_id)
        assert answer.code == OK, answer
        return bytes(answer.payload[0])

    def update(self, *ops: list[Any]) -> Any:
        """Make one atomic update; return the ids that it generated."""
        answer = self.try_update(*ops)
        assert answer.code == OK, answer
        return answer.payload

    def read_all(self) -> dict[bytes, bytes]:
        """Return every section, read page by page."""
        found: dict[bytes, bytes] = {}
        after = None
        while True:
            answer = self.call(Kind.ITERATE, SA_CKPT_SECTIONS_ANY, 0, after, True)
            assert answer.code == OK, answer
            page, after = answer.payload
            found.update({section_id: value for section_id, _, _, _, _, value in page})
            if after is None:
                return found

    def states(self) -> dict[bytes, int]:
        """Return every section's state."""
        answer = self.call(Kind.ITERATE, SA_CKPT_SECTIONS_ANY, 0, None, False)
        assert answer.code == OK, answer
        return {section_id: state for section_id, _, _, state, _, _ in answer.payload[0]}

    def status(self) -> list[Any]:
        answer = self.call(Kind.STATUS)
        assert answer.code == OK, answer
        return list(answer.payload)

    def close(self) -> None:
        answer = self.call(Kind.CLOSE)
        assert answer.code == OK, answer

    def set_active(self, only_if_none: bool = False) -> Answer:
        return self.call(Kind.ACTIVE_SET, only_if_none)

    def synchronize(self) -> Answer:
        return self.call(Kind.SYNCHRONIZE)
