"""The calls of one simulated client, and how it judges the answers.

Every call on sections goes into the history; every open, close and unlink goes into `open_close`. A value
names its writer and the number of the write, so that a checker can tell any two writes apart.
"""

from dataclasses import replace
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.messages import Kind, Op
from ckptd.core.settings import SECOND_NS
from ckptd.sim.checkers.history import Call, Operation, Outcome
from ckptd.sim.checkers.limits_history import limits_of, with_limits
from ckptd.sim.checkers.open_close import DirectoryCall
from ckptd.sim.clients.checkpoints import SimCheckpoint
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import CallResult, Done, SimClient
from ckptd.sim.clients.tracking_client import TrackingClient
from ckptd.sim.clients.workload import Workload
from ckptd.sim.world.clock import PPM, WORLD_BEGAN_WALL_NS
from ckptd.sim.world.world import Violation

OPEN_FLAGS: Final = 7
TRACKED: Final = 0.5
"""The share of handles that are also tracked, in simulations with clients that track."""


class ClientDriver:
    """A client that makes the calls it is asked for. It starts a new session when one ends or it crashed."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.workload = workload
        self.world = workload.world
        self.random = workload.world.random
        self.number = number
        self.writes = 0
        self.under_way = 0
        self.handles: dict[bytes, ClientHandle] = {}
        self.tracking_clients: list[TrackingClient] = []
        self.begin()

    def begin(self) -> None:
        """Begin a new session, unless the workload is closed."""
        if self.workload.closed:
            return
        self.handles = {}
        self.tracking_clients = []
        self.under_way = 0
        name = f"client {self.number}"
        self.client = SimClient(self.world, self.workload.links, name, self.number, self._session_ended)
        self.client.on_repeated = self._on_repeated
        self.client.connect()

    def crash(self) -> None:
        """Crash the process; another one takes its place after a while."""
        self.client.crash(self.random.random() < 0.3)
        self.workload.open_close.session_over(self.client.session, self.world.now_ns, ended=False)
        self.world.after(self.world.between(0, SECOND_NS), self.begin)

    @property
    def settled(self) -> bool:
        """True if it has nothing left to do once the workload rests."""
        return True

    def _on_repeated(self, number: int, first: CallResult, second: CallResult) -> None:
        """Note a duplicate of an update that was carried out after the update was refused for good."""
        if second.outcome == Outcome.OK:
            own = [call for call in self.workload.history.latest() if call.client == self.number]
            call = next(call for call in own if call.number == number)
            text = f"carried out after it was refused ({first.text}): {call.describe()}"
            self.workload.leaderships.repeated.append((call.creation_id, text))

    def _session_ended(self) -> None:
        silence_ns = self.client.longest_silence_ns()
        if not self.may_have_ended():
            raise Violation(
                "sessions",
                f"the session of {self.client.name} was ended {silence_ns / 1e6:.0f} ms after "
                "its last message",
            )
        self.world.say(f"{self.client.name}: its session has ended")
        self.workload.open_close.session_over(self.client.session, self.client.contact_ns, ended=True)
        self.begin()

    def mark_session_uncertain(self) -> None:
        """Note that a session that may have ended may have closed everything that it had open."""
        if self.may_have_ended():
            client = self.client
            self.workload.open_close.session_over(client.session, client.contact_ns, ended=False)

    def may_have_ended(self) -> bool:
        """Return True if the service may end the session: on request, or after the grace without contact."""
        if self.workload.closed:
            return True
        options = self.world.options
        grace_ns = options.session_grace_ns * (PPM - options.skew_ppm) // PPM
        return self.client.longest_silence_ns() >= grace_ns or self.workload.history_lost

    def value(self) -> bytes:
        """Return a value that no client has written before."""
        self.writes += 1
        return b"<%d.%d>" % (self.number, self.writes)

    def wall_ns(self) -> int:
        """Return the time of a true wall clock."""
        return WORLD_BEGAN_WALL_NS + self.world.now_ns

    def request(self, kind: int, handle: int, body: list[Any], done: Done, call_ns: int = 0) -> None:
        """Make a call of the session. Once the session is over, its answers are ignored."""
        self.under_way += 1
        client = self.client

        def finished(result: CallResult) -> None:
            if client is self.client:
                self.under_way -= 1
            done(result)

        client.request(kind, handle, body, finished, call_ns)

    # -- opening and closing

    def open(self, checkpoint: SimCheckpoint) -> None:
        """Open a checkpoint, and create it if it does not exist."""
        body = [checkpoint.name, OPEN_FLAGS, checkpoint.attributes(), True]
        client, open_close = self.client, self.workload.open_close
        handle = client.session, client.next_number
        call = open_close.begin_open(handle, checkpoint.name, checkpoint.retention_ns, self.world.now_ns)

        def on_opened(result: CallResult) -> None:
            creation_id = result.payload[1] if result.outcome == Outcome.OK else 0
            call.end(self.world.now_ns, result.outcome, result.code, creation_id)
            if self.workload.was_lost_before(creation_id, call.invoked_ns):
                raise Violation(
                    "opens",
                    f"{client.name} opened {checkpoint.name!r} ({creation_id:x}), although no replica "
                    "of it was left",
                )
            if result.outcome == Outcome.NOT_DONE:
                open_close.gone(handle)
            elif result.outcome == Outcome.REFUSED:
                raise Violation(
                    "answers", f"open of {checkpoint.name!r} was refused with {result.code}: {result.text}"
                )
            elif result.outcome == Outcome.OK and client is self.client:
                open_close.opened(handle, creation_id)
                self._add_handle(checkpoint, result.payload)

        self.request(Kind.OPEN, 0, body, on_opened)

    def _add_handle(self, checkpoint: SimCheckpoint, payload: list[Any]) -> None:
        number, creation_id, attributes = payload
        handle = ClientHandle(checkpoint, number, creation_id)
        self.check_attributes(handle, attributes, "OPEN")
        self.handles[checkpoint.name] = handle
        self.workload.subject(checkpoint, creation_id)
        if self.world.options.tracking and self.world.chance(TRACKED):
            self.tracking_clients.append(TrackingClient(self.workload, self.client, handle, self.judge))

    def close(self, handle: ClientHandle) -> None:
        """Close a handle; it is not used again."""
        self.handles.pop(handle.checkpoint.name, None)
        self.close_handle(handle.number)

    def close_handle(self, number: int, may_be_closed: bool = False, call_ns: int = 0) -> None:
        """Close what the OPEN with this number opened."""
        client, open_close = self.client, self.workload.open_close
        handle = client.session, number
        open_close.release(handle, self.world.now_ns)

        def on_closed(result: CallResult) -> None:
            if result.outcome == Outcome.OK or result.code == codes.BAD_HANDLE:
                open_close.gone(handle)
            if result.code == codes.BAD_HANDLE and not may_be_closed and not self.may_have_ended():
                raise Violation(
                    "no request is done twice",
                    f"{client.name} closed {number} and got the answer {result.text!r}",
                )

        self.request(Kind.CLOSE, number, [], on_closed, call_ns)

    def unlink(self, handle: ClientHandle, secret: int = 0) -> None:
        """Unlink the name of a checkpoint that this client has open. `secret`: that of a leader."""
        self.world.say(f"{self.client.name}: unlinks {handle.checkpoint.name.decode()}")
        call = DirectoryCall(handle.checkpoint.name, self.world.now_ns, secret=secret)
        self.workload.open_close.unlinks.append(call)

        def on_unlinked(result: CallResult) -> None:
            outcome = Outcome.REFUSED if result.code == codes.NOT_EXIST else result.outcome
            call.end(self.world.now_ns, outcome, result.code, handle.creation_id)

        body = [handle.checkpoint.name, 0, secret] if secret else [handle.checkpoint.name]
        self.request(Kind.UNLINK, 0, body, on_unlinked)

    def status(self, handle: ClientHandle, final: bool = False, call_ns: int = 0) -> None:
        """Ask for the status. `final`: nothing else is under way, so the number of opens is known."""

        def on_status(result: CallResult) -> None:
            self.judge(handle, result)
            if result.outcome != Outcome.OK:
                return
            self.check_attributes(handle, result.payload[0], "STATUS")
            name, opens = handle.checkpoint.name, result.payload[5]
            least, most = self.workload.open_close.count(name, handle.creation_id)
            if final and not self.workload.history_lost and not least <= opens <= most:
                raise Violation(
                    "opens are counted",
                    f"{name!r} ({handle.creation_id:x}) is open {opens} times according to STATUS, but "
                    f"{least} to {most} times according to its clients",
                )

        self.request(Kind.STATUS, handle.number, [], on_status, call_ns)

    def check_attributes(self, handle: ClientHandle, attributes: list[int], what: str) -> None:
        """Check the attributes in an answer: they are those of the creation, or of a resize."""
        checkpoint, created = handle.checkpoint, handle.checkpoint.attributes()
        known = self.workload.limits.by_creation.get(handle.creation_id)
        limits = limits_of(attributes)
        if attributes != created and (
            known is None or not known.may_show(limits) or attributes != with_limits(created, limits)
        ):
            raise Violation("attributes", f"{what} of {checkpoint.name!r} shows {attributes}, not {created}")

    def judge(self, handle: ClientHandle, result: CallResult) -> None:
        """Judge a refusal: a handle may be gone only if every replica or the session is gone."""
        if result.code == codes.BAD_HANDLE and self.handles.get(handle.checkpoint.name) is handle:
            if not self.workload.is_lost(handle.creation_id) and not self.may_have_ended():
                raise Violation(
                    "handles",
                    f"{self.client.name} lost its open handle of {handle.checkpoint.name!r} ({result.text})",
                )
            del self.handles[handle.checkpoint.name]
            self.workload.open_close.gone((self.client.session, handle.number))
        elif result.code == codes.NOT_EXIST and result.index < 0:
            flags = handle.checkpoint.flags
            if not flags & SA_CKPT_CHECKPOINT_COLLOCATED or flags & SA_CKPT_WR_ALL_REPLICAS:
                raise Violation(
                    "answers",
                    f"{handle.checkpoint.name!r} (flags {flags}) answered that it has no active replica",
                )
            self.request(Kind.ACTIVE_SET, handle.number, [True], lambda result: None)

    # -- sections

    def update(self, handle: ClientHandle, ops: list[Any]) -> None:
        """Make one atomic update."""
        call = self._begin(handle, Operation.UPDATE, ops)
        self.request(Kind.UPDATE, handle.number, ops, lambda result: self._end(handle, call, result))

    def update_as_leader(
        self, handle: ClientHandle, ops: list[Any], proof: list[Any], done: Done | None = None
    ) -> None:
        """Make one atomic update under the token of `proof`, the operation that proves it."""
        _, epoch, seq, *_ = proof
        call = self._begin(handle, Operation.UPDATE, ops, (epoch, seq))

        def ended(result: CallResult) -> None:
            self._end(handle, call, result)
            if done is not None:
                done(result)

        self.request(Kind.UPDATE, handle.number, [*ops, proof], ended)

    def read(self, handle: ClientHandle, section_ids: list[bytes]) -> None:
        """Read whole sections, in one call."""
        call = self._begin(handle, Operation.READ, section_ids)
        body = [[section_id, 0, None] for section_id in section_ids]
        # The body of READ is the array of elements itself.
        self.request(Kind.READ, handle.number, body, lambda result: self._end(handle, call, result))

    def read_version(self, handle: ClientHandle, section_id: bytes) -> None:
        """Read a whole section with its version."""
        call = self._begin(handle, Operation.READ, [section_id])

        def ended(result: CallResult) -> None:
            if result.outcome == Outcome.OK:
                ((value, version),) = result.payload
                self.note_version(handle, section_id, value, version)
                result = replace(result, payload=[value])
            self._end(handle, call, result)

        self.request(Kind.READ, handle.number, [[section_id, 0, None, True]], ended)

    def note_version(self, handle: ClientHandle, section_id: bytes, value: bytes, version: bytes) -> None:
        """Remember the version of a value. No other value of a section of this name may have it."""
        handle.seen[section_id] = value, version
        known = self.workload.versions.setdefault((handle.checkpoint.name, section_id, version), value)
        if known != value:
            raise Violation(
                "no two values share a version",
                f"{known!r} and {value!r} of section {section_id!r} of {handle.checkpoint.name!r}",
            )

    def update_if(
        self, handle: ClientHandle, wanted: dict[bytes, bytes | bool | None], ops: list[Any]
    ) -> None:
        """Make one atomic update with conditions. `wanted`: by section, a value that was seen with a version.

        Values are never written twice, so the history has the value where the request has its version.
        """
        shown = [[Op.REQUIRE, section_id, value] for section_id, value in wanted.items()]
        sent = [
            [Op.REQUIRE, section_id, handle.seen[section_id][1] if type(value) is bytes else value]
            for section_id, value in wanted.items()
        ]
        call = self._begin(handle, Operation.UPDATE, [*shown, *ops])

        def ended(result: CallResult) -> None:
            if result.outcome == Outcome.OK and result.payload is not None:
                for op in ops:
                    self.note_version(handle, op[1], op[2], result.payload[1])
            self._end(handle, call, replace(result, payload=None))

        self.request(Kind.UPDATE, handle.number, [*sent, *ops], ended)

    def iterate(self, handle: ClientHandle, call_ns: int = 0) -> Call:
        """Read everything, in one page."""
        call = self._begin(handle, Operation.ITERATE, [])

        def ended(result: CallResult) -> None:
            if result.outcome == Outcome.OK:
                rows, after = result.payload
                assert after is None, "one page holds all sections of the simulation"
                result = replace(result, payload={row[0]: row[5] for row in rows})
            self._end(handle, call, result)

        self.request(Kind.ITERATE, handle.number, [5, 0, None, True], ended, call_ns)
        return call

    def _begin(
        self,
        handle: ClientHandle,
        operation: Operation,
        arguments: list[Any],
        token: tuple[int, int] | None = None,
    ) -> Call:
        number = self.client.next_number
        call = Call(self.number, number, handle.creation_id, operation, arguments, self.world.now_ns)
        call.token = token
        self.workload.history.add(call)
        if operation == Operation.UPDATE:
            self.workload.leaderships.sent[self.client.session, number] = token
        return call

    def _end(self, handle: ClientHandle, call: Call, result: CallResult) -> None:
        call.returned_ns = self.world.now_ns
        call.outcome = result.outcome
        call.code, call.index, call.result = result.code, result.index, result.payload
        if result.code == codes.ACCESS:
            call.result = None  # (What such a refusal brings is no value.)
        call.epoch = result.epoch
        self.world.trace.note(self.world.now_ns, self.client.name, call.describe())
        self.judge(handle, result)
