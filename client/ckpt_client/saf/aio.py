"""The SAF checkpoint service for asyncio: coroutines for every call, an async iterator for tracking.

Where C needs an invocation and a callback, asyncio has tasks. So there are no `..._async` forms, no selection
object and no dispatch here.
"""

import weakref
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, NoReturn, Self

from ckpt_client.checkpoint.tracking import Changes, OneByOne, OwnUpdates, track
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.leadership.async_leadership import AsyncLeadership, Leading
from ckpt_client.leadership.async_leads import AsyncLeads
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import TTL_S, LeadArguments, LeadOptions, lead_arguments
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Key
from ckpt_client.saf.checkpoint_handle import READ, WRITE, CheckpointHandle, Iteration, SafCall
from ckpt_client.saf.saf_requests import SafRequest, as_timeout, named_error, open_body, with_call_name
from ckpt_client.saf.types import (
    DEFAULT,
    TIMEOUT_NS,
    CheckpointCreationAttributes,
    CheckpointDescriptor,
    SectionChange,
    SectionDescriptor,
    Version,
)
from ckpt_client.saf.version import HIGHEST, is_new, negotiate
from ckpt_client.steps import Result, drive_async
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY, SA_TIME_END
from ckpt_protocol.messages import Kind

LEAD: Final = "lead"
"""What errors name as the call, since the SAF has no function for it."""


class AsyncCheckpointService:
    """A library instance on the running loop, with a session of its own; made by `initialize`.

    Raises: SaAisError, in every method, with the SAF call's name in `call`.
    """

    def __init__(
        self, connection: AsyncConnection, required: Version, highest: Version, timeout_ns: int
    ) -> None:
        """For `initialize` only."""
        self.version = highest
        """The version that the service supports."""

        self.required_version = required
        """The version that the program asked for; below B.2 the rules of B.01 hold."""

        self.timeout_ns = timeout_ns
        """The time-out of calls to which the program gives none."""

        self.finalized = False
        self.connection = connection
        self._new = is_new(required)
        self._opened: dict[int, CheckpointHandle] = {}
        self._candidacies: weakref.WeakSet[Candidacy] = weakref.WeakSet()

    @classmethod
    async def initialize(
        cls,
        version: Version = HIGHEST,
        *,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        timeout_ns: int = DEFAULT,
        highest: Version = HIGHEST,
    ) -> Self:
        """Begin to use the service. `address`, `cluster` and `key` are those of `Table`.

        Raises: SaAisError VERSION (its `version` is the supported one); INVALID_PARAM; UNAVAILABLE if no node
        serves (TRY_AGAIN for programs of B.01).

        Source: saCkptInitialize (R11 to R15).
        """
        call = "saCkptInitialize"
        required = with_call_name(call)(negotiate)(version, highest)
        limit_ns = with_call_name(call)(as_timeout)(timeout_ns, TIMEOUT_NS)
        connection = with_call_name(call)(AsyncConnection.own)(address, cluster, key)
        service = cls(connection, required, highest, limit_ns)
        try:
            await service.ask(SafRequest(call, Kind.PING))
        except BaseException:
            connection.leave()
            raise
        return service

    async def finalize(self) -> None:
        """Close everything that was opened, and end. Source: saCkptFinalize (R21, R22)."""
        self.check("saCkptFinalize")
        self.finalized = True
        for opened in self._opened.values():
            opened.closed = "the service is finalized"
        self._opened.clear()
        for candidacy in list(self._candidacies):
            await candidacy.leave()
        await self.connection.release()

    async def leave(self) -> None:
        """Do what `finalize` does, but without waiting; for a service that the program has dropped."""
        if not self.finalized:
            self.finalized = True
            for candidacy in list(self._candidacies):
                candidacy.leave_at_once()
            self.connection.leave()

    async def checkpoint_open(
        self,
        name: Key,
        open_flags: int,
        creation_attributes: CheckpointCreationAttributes | None = None,
        *,
        timeout_ns: int = DEFAULT,
    ) -> "AsyncCheckpoint":
        """Open a checkpoint. If it is missing and CREATE is set, create it.

        Source: saCkptCheckpointOpen (R23 to R43).
        """
        call = "saCkptCheckpointOpen"
        return await self.open_planned(
            self.plan_open(call, name, open_flags, creation_attributes, timeout_ns)
        )

    def plan_open(
        self, call: str, name: Any, open_flags: Any, attributes: Any, timeout_ns: Any = DEFAULT
    ) -> tuple[bytes, int, SafRequest]:
        """Check the arguments of an open; return (name, open flags, the request)."""
        self.check(call)
        encoded, flags, body = with_call_name(call)(open_body)(name, open_flags, attributes, self._new)
        limit_ns = with_call_name(call)(as_timeout)(timeout_ns, self.timeout_ns)
        return encoded, flags, SafRequest(call, Kind.OPEN, body, limit_ns)

    async def open_planned(self, plan: tuple[bytes, int, SafRequest]) -> "AsyncCheckpoint":
        """Carry out the plan that `plan_open` returned."""
        name, flags, ask = plan
        payload = await self.ask(ask)
        handle, attributes = table_requests.parse_open_answer(payload)
        if self.finalized:
            raise self.translated(error_of(codes.BAD_HANDLE, "the service is finalized"), ask.call)
        opened = self._opened[handle] = CheckpointHandle(
            name, flags, handle, attributes, self._new, creation_id=payload[1]
        )
        return AsyncCheckpoint(self, opened)

    async def checkpoint_unlink(self, name: Key) -> None:
        """Free a name; the data goes with the last handle. Source: saCkptCheckpointUnlink (R65 to R70)."""
        await self.ask(self.plan_unlink(name))

    def plan_unlink(self, name: Any) -> SafRequest:
        """Return the request of an unlink."""
        call = "saCkptCheckpointUnlink"
        self.check(call)
        encoded = with_call_name(call)(table_requests.checkpoint_name)(name)
        secret = 0
        for opened in self._opened.values():
            if opened.leadership is not None and opened.name == encoded:
                secret = opened.leadership.secret
        return SafRequest(call, Kind.UNLINK, table_requests.unlink_body(encoded, 0, secret))

    # -- for the checkpoints

    def candidacy(self, opened: CheckpointHandle, arguments: LeadArguments) -> Candidacy:
        """Return a candidacy to lead a checkpoint, which ends with this service."""
        name, creation_id = opened.name, opened.creation_id
        candidacy = Candidacy(name, creation_id, arguments, self.connection.sibling, lambda: False)
        self._candidacies.add(candidacy)
        return candidacy

    def check(self, call: str) -> None:
        """Check that the service is not finalized. Raises: SaAisError BAD_HANDLE."""
        if self.finalized:
            raise named_error(call, codes.BAD_HANDLE, "the service is finalized")

    def forget(self, opened: CheckpointHandle) -> None:
        """Forget a checkpoint that is closed."""
        self._opened.pop(opened.handle, None)

    async def ask(self, ask: SafRequest, handle: int = 0) -> Any:
        """Make one request; return the answer's payload."""
        try:
            return await self.connection.call(ask.kind, handle, ask.body, ask.timeout_ns or self.timeout_ns)
        except SaAisError as error:
            raise self.translated(error, ask.call) from None

    def translated(self, error: SaAisError, call: str) -> SaAisError:
        """Return the error that the program's version of the interface has for this one (R6).

        If the session has ended, because it reached no node for longer than its grace, this is UNAVAILABLE
        from B.02 on, and BAD_HANDLE before. If no node serves, it is UNAVAILABLE from B.02 on, and TRY_AGAIN
        before.
        """
        code = error.code
        if self._new and code == codes.BAD_HANDLE and self.connection.ended and not self.finalized:
            error = error_of(codes.UNAVAILABLE, f"{error.text}; finalize and initialize again")
        elif not self._new and code == codes.UNAVAILABLE:
            error = error_of(codes.TRY_AGAIN, error.text)
        error.call = call
        return error


class AsyncCheckpoint:
    """An open checkpoint. Raises: SaAisError, in every method."""

    def __init__(self, service: AsyncCheckpointService, opened: CheckpointHandle) -> None:
        """For `checkpoint_open` only."""
        self.service = service
        self.opened = opened
        self._own: OwnUpdates | None = None
        self._leads = AsyncLeads(opened)

    @property
    def name(self) -> bytes:
        """The checkpoint's name."""
        return self.opened.name

    @property
    def open_flags(self) -> int:
        """The flags with which the checkpoint was opened."""
        return self.opened.open_flags

    @property
    def handle(self) -> int:
        """The number of this open, unique within its service."""
        return self.opened.handle

    @property
    def special(self) -> bool:
        """True if its updates are: this handle has tracked, so that they are noted, or it leads."""
        return self._own is not None or self.opened.leadership is not None

    async def ask(self, ask: SafRequest) -> Any:
        """Make one request on this checkpoint; return the answer's payload."""
        return await self._ask(ask, self.opened.handle)

    async def _ask(self, ask: SafRequest, handle: int) -> Any:
        if ask.kind != Kind.UPDATE:
            return await self.service.ask(ask, handle)
        if self.opened.leadership is None:
            return await self._update(ask)
        return await drive_async(self.opened.as_leader(ask), self._carry_out, None)

    async def _carry_out(self, ask: SafRequest, _: None) -> Any:
        return await self._update(ask)

    async def _update(self, ask: SafRequest) -> Any:
        if self._own is not None:
            self._own.note(self.service.connection.next_number)
        return await self.service.ask(ask, self.opened.handle)

    async def _run(self, call: SafCall[Result]) -> Result:
        return await drive_async(call, self._ask, self.opened.handle)

    async def close(self) -> None:
        """Source: saCkptCheckpointClose (R62 to R64)."""
        ask = self.opened.close()
        await self._leads.close()
        self.service.forget(self.opened)
        await self.ask(ask)

    async def retention_duration_set(self, retention_duration: int) -> None:
        """Set how long the checkpoint is kept while no program has it open, in ns.

        Source: saCkptCheckpointRetentionDurationSet.
        """
        await self._run(self.opened.retention_duration_set(retention_duration))

    async def active_replica_set(self) -> None:
        """Make the local replica the active one. Source: saCkptActiveReplicaSet (R78 to R82)."""
        await self._run(self.opened.active_replica_set())

    async def status_get(self) -> CheckpointDescriptor:
        """Source: saCkptCheckpointStatusGet (R83 to R87)."""
        return await self._run(self.opened.status_get())

    async def section_create(
        self, section_id: Key, expiration_time: int = SA_TIME_END, initial_data: table_requests.Value = b""
    ) -> bytes:
        """Create a section; return its id, which the service generates if the given one is empty.

        Source: saCkptSectionCreate (R88 to R102).
        """
        return await self._run(self.opened.section_create(section_id, expiration_time, initial_data))

    async def section_delete(self, section_id: Key) -> None:
        """Source: saCkptSectionDelete (R103)."""
        await self._run(self.opened.section_delete(section_id))

    async def section_expiration_time_set(self, section_id: Key, expiration_time: int) -> None:
        """Source: saCkptSectionExpirationTimeSet (R104)."""
        await self._run(self.opened.section_expiration_time_set(section_id, expiration_time))

    def section_iteration(
        self, sections_chosen: int = SA_CKPT_SECTIONS_ANY, expiration_time: int | None = None
    ) -> AsyncIterator[SectionDescriptor]:
        """Iterate over the sections, in pages: each section as it was when its page was read.

        Source: saCkptSectionIterationInitialize, ...Next (R107 to R114).
        """
        self.opened.check_iteration(sections_chosen, expiration_time)
        return self._iterate(sections_chosen, expiration_time)

    async def _iterate(
        self, sections_chosen: int, expiration_time: int | None
    ) -> AsyncIterator[SectionDescriptor]:
        for page in self.opened.pages(sections_chosen, expiration_time):
            for section in await self._run(page):
                yield section

    async def section_iteration_initialize(
        self, sections_chosen: int, expiration_time: int | None = None
    ) -> "AsyncSectionIteration":
        """Begin an iteration that requests one section at a time, each as it is at that moment.

        Source: saCkptSectionIterationInitialize.
        """
        return AsyncSectionIteration(
            self, await self._run(self.opened.iterate(sections_chosen, expiration_time))
        )

    async def write(self, io_vector: Iterable[tuple[Key, table_requests.Value, int]]) -> None:
        """Write elements (section_id, data, data_offset), all or none. Source: saCkptCheckpointWrite."""
        await self._run(self.opened.write(io_vector))

    async def overwrite(self, section_id: Key, data: table_requests.Value) -> None:
        """Replace a section's content and size. Source: saCkptSectionOverwrite."""
        await self._run(self.opened.overwrite(section_id, data))

    async def read(self, io_vector: Iterable[tuple[Key, int | None, int]]) -> list[bytes]:
        """Return the data of elements (section_id, data_size, data_offset), all of the same moment.

        Without a size this is everything from the offset on. A section that ends earlier returns less.

        Source: saCkptCheckpointRead (R126 to R133).
        """
        return await self._run(self.opened.read(io_vector))

    async def synchronize(self, timeout_ns: int = DEFAULT) -> None:
        """Wait until all replicas have what was written before this. Source: saCkptCheckpointSynchronize."""
        await self._run(self.opened.synchronize(timeout_ns, self.service.timeout_ns))

    async def track(self, timeout_ns: int = DEFAULT) -> AsyncIterator[SectionChange]:
        """Return an iterator over every change from now on, in order (see `tracking`).

        Changes made by this handle are left out. The handle needs READ. Tracking has begun when this returns:
        what you read after that is never older than the position from which changes are reported.
        """
        return OneByOne(await self.begin_tracking(timeout_ns))

    async def begin_tracking(self, timeout_ns: int = DEFAULT) -> Changes:
        """Track like `track`, but yield lists of the changes that came together."""
        call = "saCkptCheckpointTrack"
        self.opened.check(call, READ)
        service = self.service
        limit = TimeLimit(None, with_call_name(call)(as_timeout)(timeout_ns, service.timeout_ns))
        if self._own is None:
            self._own = OwnUpdates()

        async def ask(kind: int, body: bytes, timeout_ns: int) -> Any:
            # The error is not translated: BAD_HANDLE of an ended session ends the tracking, which would wait
            # after UNAVAILABLE.
            self.opened.check(call, READ)
            return await service.connection.call(kind, self.opened.handle, body, timeout_ns)

        def fail(error: SaAisError) -> NoReturn:
            raise service.translated(error, call) from None

        return await track(ask, limit, self._own, fail)

    # -- leadership: no SAF function, but an extension of ours

    def lead(
        self,
        timeout_ns: int = DEFAULT,
        *,
        ttl: float = TTL_S,
        watchdog: float | None = None,
        exclusive: bool = True,
        name: str | None = None,
        on_lost: Callable[[], object] | None = None,
        allow_loss_on_failover: bool = False,
    ) -> Leading:
        """Wait until this handle leads: `async with checkpoint.lead(SA_TIME_MAX, ttl=5.0) as leadership:`.

        The service has no such function: this is an extension. The other arguments are those of `Table.lead`.
        The updates of this handle carry the token; once it has lost the leadership, each raises
        LeadershipEnded, which is ACCESS. The handle needs WRITE. No replica is activated.
        """

        arguments: LeadOptions = {
            "ttl": ttl,
            "watchdog": watchdog,
            "exclusive": exclusive,
            "name": name,
            "on_lost": on_lost,
            "allow_loss_on_failover": allow_loss_on_failover,
        }

        async def begin() -> AsyncLeadership:
            checked, limit = self.plan_lead(timeout_ns, arguments)
            try:
                return await self._leads.lead(checked, limit, self._begin_to_lead)
            except SaAisError as error:
                raise self.service.translated(error, LEAD) from None

        return Leading(begin)

    def plan_lead(self, timeout_ns: int, arguments: LeadOptions) -> tuple[LeadArguments, TimeLimit]:
        """Check the arguments of `lead`."""
        self.service.check(LEAD)
        self.opened.check(LEAD, WRITE)
        checked = with_call_name(LEAD)(lead_arguments)(**arguments)
        limit_ns = with_call_name(LEAD)(as_timeout)(timeout_ns, self.service.timeout_ns)
        return checked, TimeLimit(None, limit_ns)

    def _begin_to_lead(self, arguments: LeadArguments, on_left: Callable[[], None]) -> AsyncLeadership:
        candidacy = self.service.candidacy(self.opened, arguments)
        return AsyncLeadership(candidacy, arguments, self.leading_error, on_left)

    def leading_error(self, _: str, error: SaAisError) -> SaAisError:
        """Return the error that the program gets from its leadership."""
        return self.service.translated(error, LEAD)


class AsyncSectionIteration:
    """A SaCkptSectionIterationHandleT: `next` until it raises NO_SECTIONS, then `finalize`."""

    def __init__(self, checkpoint: AsyncCheckpoint, iteration: Iteration) -> None:
        """For `section_iteration_initialize` only."""
        self._checkpoint = checkpoint
        self._iteration = iteration

    async def next(self) -> SectionDescriptor:
        """Return the next section as it is now. Source: saCkptSectionIterationNext."""
        return await self._checkpoint._run(self._iteration.next())

    async def finalize(self) -> None:
        """Source: saCkptSectionIterationFinalize."""
        self.finish()

    def finish(self) -> None:
        """End the iteration without a request, since the service keeps nothing for it."""
        self._iteration.finalize()
