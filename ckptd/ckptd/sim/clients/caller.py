"""The calls of one simulated client, and how it judges the answers.

Every call on sections goes into the history; every open, close and unlink goes into the openings. A value
names its writer and the number of the write, so that a checker can tell any two writes apart.
"""

from dataclasses import replace
from typing import Any, Final

from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_COLLOCATED, SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.messages import Kind
from ckptd.core.settings import SECOND_NS
from ckptd.sim.checkers.history import Call, Doing, Outcome
from ckptd.sim.checkers.open_close import DirectoryCall
from ckptd.sim.clients.checkpoints import Slot
from ckptd.sim.clients.client_handle import ClientHandle
from ckptd.sim.clients.sim_client import Done, SimClient, Told
from ckptd.sim.clients.tracking_client import Standby
from ckptd.sim.clients.workload import Workload
from ckptd.sim.world.clock import PPM, WORLD_BEGAN_WALL_NS
from ckptd.sim.world.world import Violation

OPEN_FLAGS: Final = 7
TRACKED: Final = 0.5
"""The share of handles that are also tracked, in simulations with trackers."""


class Caller:
    """A client that makes the calls it is asked for. It starts a new session when one ends or it crashed."""

    def __init__(self, workload: Workload, number: int) -> None:
        self.workload = workload
        self.world = workload.world
        self.random = workload.world.random
        self.number = number
        self.writes = 0
        self.under_way = 0
        self.opened: dict[bytes, ClientHandle] = {}
        self.standbys: list[Standby] = []
        self.begin()

    def begin(self) -> None:
        """Begin a new session, unless the workload is closed."""
        if self.workload.closed:
            return
        self.opened = {}
        self.standbys = []
        self.under_way = 0
        name = f"client {self.number}"
        self.client = SimClient(self.world, self.workload.links, name, self.number, self._session_ended)
        self.client.connect()

    def crash(self) -> None:
        """Crash the process; another one takes its place after a while."""
        self.client.crash(self.random.random() < 0.3)
        self.workload.openings.session_over(self.client.session, self.world.now_ns, ended=False)
        self.world.after(self.world.between(0, SECOND_NS), self.begin)

    def _session_ended(self) -> None:
        silence_ns = self.client.longest_silence_ns()
        if not self._may_have_ended():
            raise Violation(
                "sessions",
                f"the session of {self.client.name} was ended after {silence_ns / 1e6:.0f} ms of silence",
            )
        self.world.say(f"{self.client.name}: its session is over")
        self.workload.openings.session_over(self.client.session, self.client.contact_ns, ended=True)
        self.begin()

    def doubt_session(self) -> None:
        """Note that a session that may have ended may have closed everything that it had open."""
        if self._may_have_ended():
            client = self.client
            self.workload.openings.session_over(client.session, client.contact_ns, ended=False)

    def _may_have_ended(self) -> bool:
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

        def finished(told: Told) -> None:
            if client is self.client:
                self.under_way -= 1
            done(told)

        client.request(kind, handle, body, finished, call_ns)

    # -- opening and closing

    def open(self, slot: Slot) -> None:
        """Open a checkpoint, and create it if it does not exist."""
        body = [slot.name, OPEN_FLAGS, slot.attributes(), True]
        client, openings = self.client, self.workload.openings
        handle = client.session, client.next_number
        call = openings.begin_open(handle, slot.name, slot.retention_ns, self.world.now_ns)

        def told_opened(told: Told) -> None:
            creation_id = told.payload[1] if told.outcome == Outcome.OK else 0
            call.end(self.world.now_ns, told.outcome, told.code, creation_id)
            if self.workload.was_gone(creation_id, call.invoked_ns):
                text = f"{client.name} opened {slot.name!r} ({creation_id:x}), of which no replica was left"
                raise Violation("opens", text)
            if told.outcome == Outcome.NOT_DONE:
                openings.gone(handle)
            elif told.outcome == Outcome.REFUSED:
                raise Violation("answers", f"open of {slot.name!r} was refused with {told.code}: {told.text}")
            elif told.outcome == Outcome.OK and client is self.client:
                openings.opened(handle, creation_id)
                self._opened(slot, told.payload)

        self.request(Kind.OPEN, 0, body, told_opened)

    def _opened(self, slot: Slot, payload: list[Any]) -> None:
        handle, creation_id, attributes = payload
        if attributes != slot.attributes():
            raise Violation(
                "attributes", f"{slot.name!r} was opened with {attributes}, not {slot.attributes()}"
            )
        self.opened[slot.name] = opened = ClientHandle(slot, handle, creation_id)
        self.workload.subject(slot, creation_id)
        if self.world.options.tracking and self.world.chance(TRACKED):
            self.standbys.append(Standby(self.workload, self.client, opened, self.look))

    def close(self, opened: ClientHandle) -> None:
        """Close a handle; it is not used again."""
        self.opened.pop(opened.slot.name, None)
        self.close_handle(opened.handle)

    def close_handle(self, number: int, may_be_closed: bool = False, call_ns: int = 0) -> None:
        """Close what the OPEN with this number opened."""
        client, openings = self.client, self.workload.openings
        handle = client.session, number
        openings.let_go(handle, self.world.now_ns)

        def told_closed(told: Told) -> None:
            if told.outcome == Outcome.OK or told.code == codes.BAD_HANDLE:
                openings.gone(handle)
            if told.code == codes.BAD_HANDLE and not may_be_closed and not self._may_have_ended():
                raise Violation(
                    "no request is done twice", f"{client.name} closed {number} and was told {told.text!r}"
                )

        self.request(Kind.CLOSE, number, [], told_closed, call_ns)

    def unlink(self, opened: ClientHandle) -> None:
        """Unlink the name of a checkpoint that this client has open."""
        self.world.say(f"{self.client.name}: unlinks {opened.slot.name.decode()}")
        call = DirectoryCall(opened.slot.name, self.world.now_ns)
        self.workload.openings.unlinks.append(call)

        def told_unlinked(told: Told) -> None:
            outcome = Outcome.REFUSED if told.code == codes.NOT_EXIST else told.outcome
            call.end(self.world.now_ns, outcome, told.code, opened.creation_id)

        self.request(Kind.UNLINK, 0, [opened.slot.name], told_unlinked)

    def status(self, opened: ClientHandle, final: bool = False, call_ns: int = 0) -> None:
        """Ask for the status. `final`: nothing else is under way, so the number of opens is known."""

        def told_status(told: Told) -> None:
            self.look(opened, told)
            if told.outcome != Outcome.OK:
                return
            if told.payload[0] != opened.slot.attributes():
                raise Violation("attributes", f"STATUS of {opened.slot.name!r} says {told.payload[0]}")
            least, most = self.workload.openings.count(opened.slot.name, opened.creation_id)
            if final and not self.workload.history_lost and not least <= told.payload[5] <= most:
                raise Violation(
                    "opens are counted",
                    f"{opened.slot.name!r} ({opened.creation_id:x}) is open {told.payload[5]} times by"
                    f" STATUS, by its clients {least} to {most} times",
                )

        self.request(Kind.STATUS, opened.handle, [], told_status, call_ns)

    def look(self, opened: ClientHandle, told: Told) -> None:
        """Judge a refusal: a handle may be gone only if every replica or the session is gone."""
        if told.code == codes.BAD_HANDLE and self.opened.get(opened.slot.name) is opened:
            if not self.workload.is_lost(opened.creation_id) and not self._may_have_ended():
                raise Violation(
                    "handles", f"{self.client.name} lost its open {opened.slot.name!r} ({told.text})"
                )
            del self.opened[opened.slot.name]
            self.workload.openings.gone((self.client.session, opened.handle))
        elif told.code == codes.NOT_EXIST and told.index < 0:
            flags = opened.slot.flags
            if not flags & SA_CKPT_CHECKPOINT_COLLOCATED or flags & SA_CKPT_WR_ALL_REPLICAS:
                raise Violation(
                    "answers", f"{opened.slot.name!r} (flags {flags}) answered that it has no active replica"
                )
            self.request(Kind.ACTIVE_SET, opened.handle, [True], lambda told: None)

    # -- sections

    def update(self, opened: ClientHandle, ops: list[Any]) -> None:
        """Make one atomic update."""
        call = self._begin(opened, Doing.UPDATE, ops)
        self.request(Kind.UPDATE, opened.handle, ops, lambda told: self._end(opened, call, told))

    def read(self, opened: ClientHandle, section_ids: list[bytes]) -> None:
        """Read whole sections, in one call."""
        call = self._begin(opened, Doing.READ, section_ids)
        body = [[section_id, 0, None] for section_id in section_ids]
        # The body of READ is the array of elements itself.
        self.request(Kind.READ, opened.handle, body, lambda told: self._end(opened, call, told))

    def iterate(self, opened: ClientHandle, call_ns: int = 0) -> None:
        """Read everything, in one page."""
        call = self._begin(opened, Doing.ITERATE, [])

        def ended(told: Told) -> None:
            if told.outcome == Outcome.OK:
                rows, after = told.payload
                assert after is None, "a page of the simulation's holds everything"
                told = replace(told, payload={row[0]: row[5] for row in rows})
            self._end(opened, call, told)

        self.request(Kind.ITERATE, opened.handle, [5, 0, None, True], ended, call_ns)

    def _begin(self, opened: ClientHandle, doing: Doing, asked: list[Any]) -> Call:
        call = Call(self.number, self.client.next_number, opened.creation_id, doing, asked, self.world.now_ns)
        self.workload.history.add(call)
        return call

    def _end(self, opened: ClientHandle, call: Call, told: Told) -> None:
        call.returned_ns = self.world.now_ns
        call.outcome = told.outcome
        call.code, call.index, call.result = told.code, told.index, told.payload
        call.epoch = told.epoch
        self.world.trace.note(self.world.now_ns, self.client.name, call.describe())
        self.look(opened, told)
