"""One simulated client at work: what it calls, and what it makes of the answers.

Every call on sections goes into the history. A value says who wrote it and as which of
its writes, so that a checker can tell any two writes apart.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_COLLOCATED,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import MILLISECOND_NS, SECOND_NS
from ckptd.sim.checkers import EXPIRING_ID
from ckptd.sim.client import SimClient, Told
from ckptd.sim.clock import WORLD_BEGAN_WALL_NS
from ckptd.sim.history import Call, Doing, Outcome
from ckptd.sim.slots import Slot
from ckptd.sim.world import Violation

if TYPE_CHECKING:
    from ckptd.sim.workload import Workload

OPEN_FLAGS: Final = 7
GENERATED_MAX: Final = 6
"""Sections with generated ids that one client makes in one checkpoint."""

ACTIONS: Final = (
    ("put", 12),
    ("read", 12),
    ("put-many", 6),
    ("read-many", 6),
    ("patch", 4),
    ("create", 2),
    ("delete", 3),
    ("overwrite", 3),
    ("mixed", 4),
    ("iterate", 5),
    ("generate", 2),
    ("expiring", 2),
    ("status", 1),
    ("synchronize", 1),
    ("activate", 1),
    ("close", 1),
    ("unlink", 0.3),
    ("retention", 0.5),
    ("cancel", 1),
)


@dataclass(slots=True)
class Opened:
    """A handle that a client holds."""

    slot: Slot
    handle: int
    creation_id: int
    generated: int = 0


class Worker:
    """One client: it thinks and calls, and begins anew when its session is over or it crashed."""

    def __init__(self, workload: "Workload", number: int) -> None:
        self.workload = workload
        self.world = workload.world
        self.random = workload.world.random
        self.number = number
        self.writes = 0
        self.under_way = 0
        self.opened: dict[bytes, Opened] = {}
        self.begin()
        self._think()

    def begin(self) -> None:
        """A new session, while the workload is open."""
        if self.workload.closed:
            return
        self.opened = {}
        self.under_way = 0
        name = f"client {self.number}"
        self.client = SimClient(self.world, self.workload.links, name, self.number, self._session_ended)
        self.client.connect()

    def crash(self) -> None:
        """The process dies; another one takes its place after a while."""
        self.client.crash(self.random.random() < 0.3)
        self.world.after(self.world.between(0, SECOND_NS), self.begin)

    def _session_ended(self) -> None:
        silence_ns = self.client.longest_silence_ns()
        if not self._may_have_ended():
            raise Violation(
                "sessions",
                f"the session of {self.client.name} was ended after {silence_ns / 1e6:.0f} ms of silence",
            )
        self.world.say(f"{self.client.name}: its session is over")
        self.begin()

    def _may_have_ended(self) -> bool:
        """Whether the service may end the session: it was out of touch for its grace, or all is lost."""
        grace_ns = self.world.options.session_grace_ns
        return self.client.longest_silence_ns() >= grace_ns or self.workload.history_lost()

    # -- acting

    def _think(self) -> None:
        self.world.after(self.world.about(self.world.options.think_ns), self._act)

    def _act(self) -> None:
        if self.workload.resting:
            return
        self._think()
        if self.client.over or self.under_way >= self.world.options.pipeline:
            return
        slot = self.random.choice(self.workload.slots)
        opened = self.opened.get(slot.name)
        if opened is None:
            self.open(slot)
            return
        names, weights = zip(*ACTIONS, strict=True)
        self.act(self.random.choices(names, weights)[0], opened)

    def act(self, action: str, opened: Opened) -> None:
        """Do one named action on an open checkpoint, where it makes sense for its kind."""
        ids = opened.slot.section_ids
        one = ids[0] if self.random.random() < 0.4 else self.random.choice(ids)
        some = self.random.sample(ids, self.random.randint(1, len(ids)))
        single, sync = opened.slot.single, bool(opened.slot.flags & SA_CKPT_WR_ALL_REPLICAS)
        match action:
            case "put":
                self.update(opened, [[Op.PUT, one, self.value(), None]])
            case "put-many":
                self.update(opened, [[Op.PUT, section_id, self.value(), None] for section_id in some])
            case "patch":
                self.update(opened, [[Op.PATCH, one, self.random.randint(0, 20), self.value(), None]])
            case "overwrite":
                self.update(opened, [[Op.OVERWRITE, one, self.value()]])
            case "create" if not single:
                self.update(opened, [[Op.CREATE, one, SA_TIME_END, self.value()]])
            case "delete" if not single:
                self.update(opened, [[Op.DELETE, one]])
            case "mixed" if not single:
                self.update(opened, [self._any_op(section_id) for section_id in some])
            case "generate" if not single and opened.generated < GENERATED_MAX:
                opened.generated += 1
                self.update(opened, [[Op.CREATE, b"", SA_TIME_END, self.value()]])
            case "expiring" if not single:
                until_ns = self.wall_ns() + self.world.between(50 * MILLISECOND_NS, 3 * SECOND_NS)
                self.update(opened, [[Op.PUT, EXPIRING_ID + b"%d" % self.number, self.value(), until_ns]])
            case "read":
                self.read(opened, [one])
            case "read-many":
                self.read(opened, some)
            case "iterate":
                self.iterate(opened)
            case "status":
                self.request(Kind.STATUS, opened.handle, [], lambda told: self._check_status(opened, told))
            case "synchronize" if not sync:
                self.request(Kind.SYNCHRONIZE, opened.handle, [], lambda told: self._look(opened, told))
            case "activate" if opened.slot.flags & SA_CKPT_CHECKPOINT_COLLOCATED and not sync:
                self.request(Kind.ACTIVE_SET, opened.handle, [False], lambda told: self._look(opened, told))
            case "close":
                self.close(opened)
            case "unlink":
                self.world.say(f"{self.client.name}: unlinks {opened.slot.name.decode()}")
                self.request(Kind.UNLINK, 0, [opened.slot.name], lambda told: None)
            case "retention":
                self.request(
                    Kind.RETENTION_SET,
                    opened.handle,
                    [opened.slot.retention_ns],
                    lambda told: self._look(opened, told),
                )
            case "cancel" if self.client.pending:
                self.client.cancel(self.random.choice(list(self.client.pending)))

    def _any_op(self, section_id: bytes) -> list[Any]:
        """An operation that may be refused, so that an update can fail in its middle."""
        match self.random.randint(0, 3):
            case 0:
                return [Op.CREATE, section_id, SA_TIME_END, self.value()]
            case 1:
                return [Op.DELETE, section_id]
            case 2:
                return [Op.OVERWRITE, section_id, self.value()]
            case _:
                return [Op.PUT, section_id, self.value(), None]

    def value(self) -> bytes:
        """A value that nobody ever wrote before."""
        self.writes += 1
        return b"<%d.%d>" % (self.number, self.writes)

    def wall_ns(self) -> int:
        """A true wall clock."""
        return WORLD_BEGAN_WALL_NS + self.world.now_ns

    def request(self, kind: int, handle: int, body: list[Any], done: Any, call_ns: int = 0) -> None:
        """A call of the session's; nothing more is heard of it once the session is over."""
        self.under_way += 1
        client = self.client

        def finished(told: Told) -> None:
            if client is self.client:
                self.under_way -= 1
            done(told)

        client.request(kind, handle, body, finished, call_ns)

    # -- opening and closing

    def open(self, slot: Slot) -> None:
        """Open a checkpoint, creating it where it is not there."""
        body = [slot.name, OPEN_FLAGS, slot.attributes(), True]
        client = self.client

        def told_opened(told: Told) -> None:
            if told.outcome == Outcome.OK and client is self.client:
                handle, creation_id, attributes = told.payload
                if attributes != slot.attributes():
                    raise Violation(
                        "attributes", f"{slot.name!r} was opened with {attributes}, not {slot.attributes()}"
                    )
                self.opened[slot.name] = Opened(slot, handle, creation_id)
                self.workload.subject(slot, creation_id)
            elif told.outcome == Outcome.REFUSED:
                raise Violation("answers", f"open of {slot.name!r} was refused with {told.code}: {told.text}")

        self.request(Kind.OPEN, 0, body, told_opened)

    def close(self, opened: Opened) -> None:
        """Close a handle; it is not used again."""
        self.opened.pop(opened.slot.name, None)
        self.request(Kind.CLOSE, opened.handle, [], lambda told: None)

    def _check_status(self, opened: Opened, told: Told) -> None:
        self._look(opened, told)
        if told.outcome == Outcome.OK and told.payload[0] != opened.slot.attributes():
            raise Violation("attributes", f"STATUS of {opened.slot.name!r} says {told.payload[0]}")

    def _look(self, opened: Opened, told: Told) -> None:
        """What a refusal means for the handle: it is gone only where every replica or the session is."""
        if told.code == codes.BAD_HANDLE and self.opened.get(opened.slot.name) is opened:
            if not self.workload.is_lost(opened.creation_id) and not self._may_have_ended():
                raise Violation(
                    "handles", f"{self.client.name} lost its open {opened.slot.name!r} ({told.text})"
                )
            del self.opened[opened.slot.name]
        elif told.code == codes.NOT_EXIST and told.index < 0:
            flags = opened.slot.flags
            if not flags & SA_CKPT_CHECKPOINT_COLLOCATED or flags & SA_CKPT_WR_ALL_REPLICAS:
                raise Violation(
                    "answers", f"{opened.slot.name!r} (flags {flags}) answered that it has no active replica"
                )
            self.request(Kind.ACTIVE_SET, opened.handle, [True], lambda told: None)

    # -- sections

    def update(self, opened: Opened, ops: list[Any]) -> None:
        """One atomic update."""
        call = self._begin(opened, Doing.UPDATE, ops)
        self.request(Kind.UPDATE, opened.handle, ops, lambda told: self._end(opened, call, told))

    def read(self, opened: Opened, section_ids: list[bytes]) -> None:
        """Whole sections, in one call."""
        call = self._begin(opened, Doing.READ, section_ids)
        body = [[section_id, 0, None] for section_id in section_ids]
        # READ's body is the array of elements itself.
        self.request(Kind.READ, opened.handle, body, lambda told: self._end(opened, call, told))

    def iterate(self, opened: Opened, call_ns: int = 0) -> None:
        """Everything, in one page."""
        call = self._begin(opened, Doing.ITERATE, [])

        def ended(told: Told) -> None:
            if told.outcome == Outcome.OK:
                rows, after = told.payload
                assert after is None, "a page of the simulation's holds everything"
                told = Told(Outcome.OK, told.code, {row[0]: row[5] for row in rows})
            self._end(opened, call, told)

        self.request(Kind.ITERATE, opened.handle, [5, 0, None, True], ended, call_ns)

    def _begin(self, opened: Opened, doing: Doing, asked: list[Any]) -> Call:
        call = Call(
            self.number, self.client._next_number, opened.creation_id, doing, asked, self.world.now_ns
        )
        self.workload.history.add(call)
        return call

    def _end(self, opened: Opened, call: Call, told: Told) -> None:
        call.returned_ns = self.world.now_ns
        call.outcome = told.outcome
        call.code, call.index, call.result = told.code, told.index, told.payload
        self.world.trace.note(self.world.now_ns, self.client.name, call.describe())
        self._look(opened, told)
