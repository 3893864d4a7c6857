"""Lead a checkpoint, on an event loop: wait in the queue, keep the leadership, leave it.

A candidacy has a connection and an open handle of its own, so that no renewal waits behind the table's calls.
The program's updates go through the table and carry the token. When the handle is closed, whoever waits is
next.

`Table` has its candidacies on the loop of `loop_thread`, `AsyncTable` on the program's.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from typing import Any, Final

from ckpt_client.checkpoint.leadership_state import SECOND_NS, LeadershipState, Token, boottime_ns
from ckpt_client.checkpoint.open_checkpoint import lacks_active, open_creation
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.blocking_connection import DETACH_NS
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.lead_arguments import LeadArguments, own_host, own_pid
from ckpt_client.leadership.leaders import answer_of, leader_body, leader_track_body
from ckpt_client.requests import table_requests
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_client.steps import Request, drive_async
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import LeaderAnswer

TRACK_NS: Final = 30_000 * MILLISECOND_NS
"""The time-out of one LEADER_TRACK. The service answers after 10 s at the latest."""

RETRY_NS: Final = 250 * MILLISECOND_NS
"""The pause before a request is repeated while no node serves."""

_WAITS: Final = (codes.TRY_AGAIN, codes.TIMEOUT, codes.UNAVAILABLE)

Connect = Callable[[], AsyncConnection]
"""Returns a connection of its own, on the running loop."""

_leaving: Final[set[asyncio.Task[None]]] = set()
"""Connections that are being left. Nothing else refers to their tasks."""

logger = logging.getLogger("aspCheckpoint")


class Candidacy:
    """One program's way to lead one checkpoint, from the queue to its end. Use it on one loop only.

    `may_activate`: says if a replica may be activated where none is.
    """

    def __init__(
        self,
        name: bytes,
        creation_id: int,
        arguments: LeadArguments,
        connect: Connect,
        may_activate: Callable[[], bool],
        clock: Callable[[], int] = boottime_ns,
    ) -> None:
        self.state = LeadershipState(secrets.randbits(63) + 1, arguments.ttl_ns, arguments.watchdog_ns, clock)
        self.name = name.decode()
        self._name = name
        self._creation_id = creation_id
        self._arguments = arguments
        self._connect = connect
        self._may_activate = may_activate
        self._connection: AsyncConnection | None = None
        self._handle = 0
        self._in_queue = False
        self._last: LeaderAnswer | None = None
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    # -- to the front of the queue

    async def win(self, limit: TimeLimit) -> None:
        """Wait in the queue until we lead. If that fails or is cancelled, leave the queue.

        Raises: SaAisError, TIMEOUT when the time is over; BAD_HANDLE if it was left before.
        """
        if self.state.ended:
            raise error_of(codes.BAD_HANDLE, "the leadership was left")
        self._connection = self._connect()
        try:
            while not await self._advance(limit):
                pass
        except BaseException:
            self.leave_at_once()
            raise
        loop = asyncio.get_running_loop()
        self.state.wake = lambda: self._wake(loop)
        self._tasks = [loop.create_task(self._keep()), loop.create_task(self._watch())]

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nothing renews any more.
            loop.call_soon_threadsafe(self._woken.set)

    async def _advance(self, limit: TimeLimit) -> bool:
        """Make the next request on the way to lead. Return True when we lead."""
        was_in_queue = self._in_queue
        try:
            if not self._handle:
                await self._open(limit)
            if not self._in_queue:
                await self._enqueue(limit)
                return False
            last = self._last
            if last is None:
                answer = await self._ask(Kind.LEADER, leader_body(self._handle), limit.left_ns())
            else:
                limit_ns = min(limit.left_ns(), TRACK_NS)
                answer = await self._ask(
                    Kind.LEADER_TRACK, leader_track_body(self._handle, last.version), limit_ns
                )
            self._last = answer
            if answer.place is None:
                self._in_queue = False
            elif answer.place == 0:
                self._in_queue = await self._take_up(answer, limit)
                return self._in_queue
        except SaAisError as error:
            await self._recover(error, was_in_queue, limit)
        return False

    async def _open(self, limit: TimeLimit) -> None:
        """Open the checkpoint for writing. Raises: SaAisError NOT_EXIST if another one has its name."""
        flags = SA_CKPT_CHECKPOINT_READ | SA_CKPT_CHECKPOINT_WRITE
        opening = open_creation(pack_body([self._name, flags, None, True]), self._creation_id)
        payload = await drive_async(opening, self._carry_out, limit)
        if payload is None:
            raise error_of(codes.NOT_EXIST, "the name belongs to another checkpoint by now")
        self._handle, _ = table_requests.parse_open_answer(payload)

    async def _carry_out(self, request: Request, limit: TimeLimit) -> Any:
        return await self._call(*request, limit.left_ns())

    async def _enqueue(self, limit: TimeLimit) -> None:
        """Join the queue. To do so again with the same handle changes nothing."""
        ttl_ns, _, exclusive, name, _, allow_loss = self._arguments
        program = (name, own_host(), own_pid())
        lead = [Op.LEAD, self._handle, self.state.secret, ttl_ns, exclusive, allow_loss, *program]
        await self._call(Kind.UPDATE, self._handle, pack_body([lead]), limit.left_ns())
        self._in_queue, self._last = True, None

    async def _take_up(self, answer: LeaderAnswer, limit: TimeLimit) -> bool:
        """Renew the leadership that we are granted, before we act. Return False if it is over already."""
        granted, state = answer.leader, self.state
        if granted is None:
            return False
        sent_ns = state.clock()
        body = leader_body(self._handle, granted.epoch, granted.seq)
        now = await self._ask(Kind.LEADER, body, limit.left_ns())
        leads = now.leader is not None and (now.leader.epoch, now.leader.seq) == granted[:2]
        if now.place != 0 or not leads or state.clock() >= sent_ns + state.ttl_ns:
            return False
        token = Token(self._creation_id, granted.epoch, granted.seq)
        self._last = now
        state.grant(token, sent_ns, now.lineage, granted.data_may_be_lost)
        return True

    async def _recover(self, error: SaAisError, was_in_queue: bool, limit: TimeLimit) -> None:
        """Do what makes the next attempt promising. Raises: SaAisError if nothing does."""
        if limit.is_over:
            raise self._time_is_over(error)
        if error.code == codes.BAD_HANDLE and self._connection is not None:
            self._connection.renew()
            self._handle, self._in_queue = 0, False
        elif lacks_active(error) and self._handle:
            self._last = None
            if self._may_activate():
                logger.info("checkpoint %r has no active replica: activating the local one", self.name)
                with contextlib.suppress(SaAisError):
                    await self._call(Kind.ACTIVE_SET, self._handle, pack_body([True]), limit.left_ns())
                return
            if not was_in_queue:
                raise error
        elif error.code not in _WAITS or not was_in_queue:
            raise error
        await asyncio.sleep(min(RETRY_NS, limit.left_ns()) / SECOND_NS)

    def _time_is_over(self, error: SaAisError) -> SaAisError:
        last = self._last
        if last is None or not last.place:
            return error
        text = f"the time is over, and this program is number {last.place} of those that wait to lead"
        if last.leader is not None:
            program = last.leader.program
            text += f"; {program.name!r} (process {program.pid} on {program.host!r}) leads"
        return error_of(codes.TIMEOUT, text)

    # -- while we lead

    async def _keep(self) -> None:
        """Renew the leadership until it has ended."""
        state = self.state
        try:
            while not state.is_over:
                self._woken.clear()
                due_ns = state.valid_until_ns if state.is_silent() else state.renew_at_ns
                pause_ns = due_ns - state.clock()
                if pause_ns <= 0:
                    await self._renew()
                    pause_ns = RETRY_NS if state.renew_at_ns <= state.clock() else 0
                if pause_ns > 0:
                    left_ns = max(state.valid_until_ns - state.clock(), MILLISECOND_NS)
                    await self._pause(min(pause_ns, left_ns))
        finally:
            state.end("its renewals have stopped")

    async def _pause(self, pause_ns: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause_ns / SECOND_NS):
                await self._woken.wait()

    async def _renew(self) -> None:
        state = self.state
        sent_ns = state.clock()
        left_ns = max(state.valid_until_ns - sent_ns, MILLISECOND_NS)
        body = leader_body(self._handle, state.token.epoch, state.token.seq)
        try:
            self._take(await self._ask(Kind.LEADER, body, left_ns), sent_ns)
        except SaAisError as error:
            if error.code != codes.BAD_HANDLE:  # That is for `_watch` to mend.
                self._end_unless_passing(error)

    async def _watch(self) -> None:
        """Notice at once when the leadership has ended, or the data may be lost.

        If the session has ended without a proof that this process is dead, the leadership lasts until its ttl
        is over, and the table's writes can still renew it. So the checkpoint is opened again, to watch it.
        """
        version = self._last.version if self._last is not None else 0
        while not self.state.ended:
            body = leader_track_body(self._handle, version)
            try:
                answer = await self._ask(Kind.LEADER_TRACK, body, TRACK_NS)
            except SaAisError as error:
                if error.code == codes.BAD_HANDLE:
                    await self._open_again()
                else:
                    self._end_unless_passing(error)
                await asyncio.sleep(RETRY_NS / SECOND_NS)
                continue
            version = answer.version
            self._take(answer, None)

    async def _open_again(self) -> None:
        if self._connection is not None:
            self._connection.renew()
            try:
                await self._open(TimeLimit(None, TRACK_NS))
            except SaAisError as error:
                if error.code == codes.NOT_EXIST:
                    self._end(f"the checkpoint is gone: {error.text}")
                else:
                    self._end_unless_passing(error)

    def _end_unless_passing(self, error: SaAisError) -> None:
        """End the leadership, unless the request may succeed later."""
        if error.code not in (*_WAITS, codes.NO_RESOURCES, codes.BAD_HANDLE) and not lacks_active(error):
            self._end(error.text)

    def _end(self, why: str) -> None:
        self.state.end(why)
        self._woken.set()

    def _take(self, answer: LeaderAnswer, sent_ns: int | None) -> None:
        """Take the news of who leads; if it is us, with a request that was sent then."""
        state, leader = self.state, answer.leader
        if leader is not None and (leader.epoch, leader.seq) == state.token[1:]:
            if not state.data_may_be_lost and answer.lineage != state.lineage:
                logger.warning("checkpoint %r: the newest updates may be lost", self.name)
            state.note_lineage(answer.lineage)
            if sent_ns is not None and answer.place == 0:
                state.renew(sent_ns)
        elif leader is None:
            self._end("its leadership was revoked, or not renewed in time")
        else:
            program = leader.program
            self._end(f"{program.name!r} (process {program.pid} on {program.host!r}) leads now")

    async def over(self) -> None:
        """Wait until we lead no more."""
        if self._tasks:
            await asyncio.wait(self._tasks[:1])

    # -- leaving

    async def resign(self, to: str | None, limit: TimeLimit) -> None:
        """Hand over, to the first program of this name if one is given, and end the candidacy.

        Raises: SaAisError NOT_EXIST if no program of this name waits; then we lead as before.
        LeadershipEnded if that was lost meanwhile. SaAisError of the request; then the leadership ends with
        the handle.
        """
        self.state.leaving = True
        if to is None:
            self.state.end("it has resigned")
        try:
            if self._handle and self._connection is not None:
                body = pack_body([[Op.RESIGN, self._handle, to]])
                await self._call(Kind.UPDATE, self._handle, body, limit.left_ns())
        except SaAisError as error:
            if to is not None and error.code == codes.NOT_EXIST:
                self.state.stay()
                raise
            await self._release(limit)
            if error.code != codes.BAD_HANDLE:
                raise
        except BaseException:
            self.leave_at_once()
            raise
        else:
            await self._release(limit)

    async def leave(self) -> None:
        """End the candidacy, whatever happens; 1 s at most."""
        try:
            await self.resign(None, TimeLimit(None, DETACH_NS))
        except SaAisError as error:
            # If the session has ended, so has the leadership; if not, the end of its ttl ends it.
            logger.info("the leadership of checkpoint %r was not resigned cleanly: %s", self.name, error)

    async def _release(self, limit: TimeLimit) -> None:
        connection = self._detach()
        if connection is not None:
            await connection.release(limit)

    def leave_at_once(self) -> None:
        """Close connection and handle, without waiting: then the next one leads.

        A task of its own waits for the answer. If the connection were closed while the answer to LEAD is on
        its way, the node would read nothing more from it, and this program would have its place for its ttl.
        """
        connection = self._detach()
        if connection is None:
            return

        def on_done(task: asyncio.Task[None]) -> None:
            _leaving.discard(task)
            if task.cancelled():  # The loop ends, perhaps before the task has begun.
                connection.leave()

        task = asyncio.get_running_loop().create_task(connection.release(TimeLimit(None, DETACH_NS)))
        _leaving.add(task)
        task.add_done_callback(on_done)

    def _detach(self) -> AsyncConnection | None:
        """End the tasks and the state; return the connection, which still has to be left."""
        self.state.leaving = True
        self.state.end("it has resigned")
        connection, self._connection = self._connection, None
        self._handle = 0
        for task in self._tasks:
            task.cancel()
        return connection

    @property
    def finalized(self) -> bool:
        """True if nothing is left to be ended when the process ends."""
        return self._connection is None

    async def finalize(self) -> None:
        """Resign, on the loop, when the process ends."""
        await self.leave()

    # -- requests

    async def _call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        connection = self._connection
        if connection is None:
            raise error_of(codes.BAD_HANDLE, "the leadership was left")
        return await connection.call(kind, handle, body, timeout_ns)

    async def _ask(self, kind: int, body: bytes, timeout_ns: int) -> LeaderAnswer:
        return answer_of(await self._call(kind, self._handle, body, timeout_ns))
