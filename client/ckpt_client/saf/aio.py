"""The SAF checkpoint service for asyncio: coroutines for every call, an async iterator for tracking.

Where C needs an invocation and a callback, asyncio has tasks: there are no `..._async` forms, no selection
object and no dispatch here.
"""

from collections.abc import AsyncIterator, Iterable
from typing import Any, NoReturn, Self

from ckpt_client.checkpoint.tracking import Changes, OneByOne, OwnUpdates, track
from ckpt_client.errors import SaAisError, error_of
from ckpt_client.io.aio_connection import AsyncConnection
from ckpt_client.saf.answers import created_id, descriptor_of, page_of, values_of
from ckpt_client.saf.checkpoint_handle import READ, Iteration, Opened
from ckpt_client.saf.saf_requests import Ask, as_timeout, iterate, named, named_error, open_body
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
from ckpt_client.session import table_requests
from ckpt_client.session.table_requests import Key
from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.constants import SA_CKPT_SECTIONS_ANY, SA_TIME_END
from ckpt_protocol.messages import Kind


class AsyncCheckpointService:
    """A library instance on the running loop, with a session of its own; made by `initialize`.

    `version`: what the service speaks; `required_version`: what the program asked for (below B.2 the rules of
    B.01 hold). `timeout_ns`: of calls that are given none.

    Raises: SaAisError, in every method, with the SAF call's name in `call`.
    """

    def __init__(
        self, connection: AsyncConnection, required: Version, highest: Version, timeout_ns: int
    ) -> None:
        """Only for `initialize`."""
        self.version = highest
        self.required_version = required
        self.timeout_ns = timeout_ns
        self.finalized = False
        self.connection = connection
        self._new = is_new(required)
        self._opened: dict[int, Opened] = {}

    @classmethod
    async def initialize(
        cls,
        version: Any = HIGHEST,
        *,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        timeout_ns: int = DEFAULT,
        highest: Version = HIGHEST,
    ) -> Self:
        """Begin to use the service. `address`, `cluster`, `key`: as `Table`'s.

        Raises: SaAisError VERSION (its `version` is the one supported), INVALID_PARAM, UNAVAILABLE: no node
        serves (TRY_AGAIN for programs of B.01).

        Source: saCkptInitialize (R11 to R15).
        """
        call = "saCkptInitialize"
        required = named(call)(negotiate)(version, highest)
        limit_ns = named(call)(as_timeout)(timeout_ns, TIMEOUT_NS)
        connection = named(call)(AsyncConnection.own)(address, cluster, key)
        service = cls(connection, required, highest, limit_ns)
        try:
            await service.ask(Ask(call, Kind.PING))
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
        await self.connection.release()

    async def leave(self) -> None:
        """The same, waiting for nobody: for a service that nobody can reach any more."""
        if not self.finalized:
            self.finalized = True
            self.connection.leave()

    async def checkpoint_open(
        self,
        name: Key,
        open_flags: int,
        creation_attributes: CheckpointCreationAttributes | None = None,
        *,
        timeout_ns: int = DEFAULT,
    ) -> "AsyncCheckpoint":
        """Open a checkpoint, creating it where CREATE is set and it is missing.

        Source: saCkptCheckpointOpen (R23 to R43).
        """
        call = "saCkptCheckpointOpen"
        return await self.open_planned(
            self.plan_open(call, name, open_flags, creation_attributes, timeout_ns)
        )

    def plan_open(
        self, call: str, name: Any, open_flags: Any, attributes: Any, timeout_ns: Any = DEFAULT
    ) -> tuple[bytes, int, Ask]:
        """What an open asks, its arguments checked: (name, open flags, the request)."""
        self.check(call)
        encoded, flags, body = named(call)(open_body)(name, open_flags, attributes, self._new)
        limit_ns = named(call)(as_timeout)(timeout_ns, self.timeout_ns)
        return encoded, flags, Ask(call, Kind.OPEN, body, limit_ns)

    async def open_planned(self, plan: tuple[bytes, int, Ask]) -> "AsyncCheckpoint":
        """Do what `plan_open` made."""
        name, flags, ask = plan
        handle, attributes = table_requests.opened_of(await self.ask(ask))
        if self.finalized:
            raise self.translated(error_of(codes.BAD_HANDLE, "the service is finalized"), ask.call)
        opened = self._opened[handle] = Opened(name, flags, handle, attributes, self._new)
        return AsyncCheckpoint(self, opened)

    async def checkpoint_unlink(self, name: Key) -> None:
        """Free a name; the data goes with the last handle. Source: saCkptCheckpointUnlink (R65 to R70)."""
        await self.ask(self.plan_unlink(name))

    def plan_unlink(self, name: Any) -> Ask:
        """What an unlink asks."""
        call = "saCkptCheckpointUnlink"
        self.check(call)
        return Ask(call, Kind.UNLINK, pack_body([named(call)(table_requests.checkpoint_name)(name)]))

    # -- for the checkpoints

    def check(self, call: str) -> None:
        """The service is not finalized. Raises: SaAisError BAD_HANDLE."""
        if self.finalized:
            raise named_error(call, codes.BAD_HANDLE, "the service is finalized")

    def forget(self, opened: Opened) -> None:
        """A checkpoint is closed."""
        self._opened.pop(opened.handle, None)

    async def ask(self, ask: Ask, handle: int = 0) -> Any:
        """One request; the answer's payload."""
        try:
            return await self.connection.call(ask.kind, handle, ask.body, ask.timeout_ns or self.timeout_ns)
        except SaAisError as error:
            raise self.translated(error, ask.call) from None

    def translated(self, error: SaAisError, call: str) -> SaAisError:
        """The error as this version of the interface tells it (R6).

        A session that ended, since no node was reached for longer than its grace, is UNAVAILABLE from B.02 on
        and BAD_HANDLE before; that nobody serves is UNAVAILABLE, and TRY_AGAIN before.
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

    def __init__(self, service: AsyncCheckpointService, opened: Opened) -> None:
        """Only for `checkpoint_open`."""
        self.service = service
        self.opened = opened
        self._own: OwnUpdates | None = None

    @property
    def name(self) -> bytes:
        """The checkpoint's name."""
        return self.opened.name

    @property
    def open_flags(self) -> int:
        """What it was opened for."""
        return self.opened.open_flags

    @property
    def handle(self) -> int:
        """The number of this open, among those of its service."""
        return self.opened.handle

    @property
    def tracked(self) -> bool:
        """Whether it is, or was, tracked: its own updates are noted then."""
        return self._own is not None

    async def ask(self, ask: Ask) -> Any:
        """One request on this checkpoint; the answer's payload."""
        if self._own is not None and ask.kind == Kind.UPDATE:
            self._own.note(self.service.connection.next_number)
        return await self.service.ask(ask, self.opened.handle)

    async def close(self) -> None:
        """Source: saCkptCheckpointClose (R62 to R64)."""
        ask = self.opened.close()
        self.service.forget(self.opened)
        await self.ask(ask)

    async def retention_duration_set(self, retention_duration: int) -> None:
        """How long it stays when nobody has it open, in ns. Source: saCkptCheckpointRetentionDurationSet."""
        await self.ask(self.opened.retention_duration_set(retention_duration))

    async def active_replica_set(self) -> None:
        """Make the local replica the active one. Source: saCkptActiveReplicaSet (R78 to R82)."""
        await self.ask(self.opened.active_replica_set())

    async def status_get(self) -> CheckpointDescriptor:
        """Source: saCkptCheckpointStatusGet (R83 to R87)."""
        return descriptor_of(await self.ask(self.opened.status_get()))

    async def section_create(
        self, section_id: Key, expiration_time: int = SA_TIME_END, initial_data: table_requests.Value = b""
    ) -> bytes:
        """The new section's id: the one given, or one made up for an empty one.

        Source: saCkptSectionCreate (R88 to R102).
        """
        ask = self.opened.section_create(section_id, expiration_time, initial_data)
        return created_id(section_id, await self.ask(ask))

    async def section_delete(self, section_id: Key) -> None:
        """Source: saCkptSectionDelete (R103)."""
        await self.ask(self.opened.section_delete(section_id))

    async def section_expiration_time_set(self, section_id: Key, expiration_time: int) -> None:
        """Source: saCkptSectionExpirationTimeSet (R104)."""
        await self.ask(self.opened.section_expiration_time_set(section_id, expiration_time))

    def section_iteration(
        self, sections_chosen: int = SA_CKPT_SECTIONS_ANY, expiration_time: int | None = None
    ) -> AsyncIterator[SectionDescriptor]:
        """The sections, in pages: each as it was when its page was read.

        Source: saCkptSectionIterationInitialize, ...Next (R107 to R114).
        """
        call = "saCkptSectionIterationInitialize"
        self.opened.begin_iteration(call, sections_chosen, expiration_time)
        return self._iterate(call, sections_chosen, expiration_time)

    async def _iterate(
        self, call: str, sections_chosen: int, expiration_time: int | None
    ) -> AsyncIterator[SectionDescriptor]:
        after: bytes | None = None
        while True:
            page, after = await self.page(call, sections_chosen, expiration_time, after)
            for section in page:
                yield section
            if after is None:
                return

    async def page(
        self, call: str, sections_chosen: int, expiration_time: int | None, after: bytes | None
    ) -> tuple[list[SectionDescriptor], bytes | None]:
        """One page of an iteration, and where the next one begins (None: there is none)."""
        self.opened.check(call)
        return page_of(await self.ask(iterate(call, sections_chosen, expiration_time, after, None)))

    async def section_iteration_initialize(
        self, sections_chosen: int, expiration_time: int | None = None
    ) -> "AsyncSectionIteration":
        """Begin an iteration that asks for each section as it is then.

        Source: saCkptSectionIterationInitialize.
        """
        call = "saCkptSectionIterationInitialize"
        self.opened.begin_iteration(call, sections_chosen, expiration_time)
        await self.ask(self.opened.status_get(call))  # Whether there is an active replica (R48).
        return AsyncSectionIteration(self, Iteration(self.opened, sections_chosen, expiration_time))

    async def write(self, io_vector: Iterable[tuple[Key, table_requests.Value, int]]) -> None:
        """Write elements (section_id, data, data_offset), all or none. Source: saCkptCheckpointWrite."""
        await self.ask(self.opened.write(io_vector))

    async def overwrite(self, section_id: Key, data: table_requests.Value) -> None:
        """Give a section this content and size. Source: saCkptSectionOverwrite."""
        await self.ask(self.opened.overwrite(section_id, data))

    async def read(self, io_vector: Iterable[tuple[Key, int | None, int]]) -> list[bytes]:
        """The data of elements (section_id, data_size, data_offset), all of one moment.

        No size: everything from the offset on. A section that ends before gives less.

        Source: saCkptCheckpointRead (R126 to R133).
        """
        return values_of(await self.ask(self.opened.read(io_vector)))

    async def synchronize(self, timeout_ns: int = DEFAULT) -> None:
        """Wait until all replicas have what was written before. Source: saCkptCheckpointSynchronize."""
        await self.ask(self.opened.synchronize(timeout_ns, self.service.timeout_ns))

    async def track(self) -> AsyncIterator[SectionChange]:
        """Every change from now on, in order, but for those made by this very handle (see `tracking`).

        Needs READ. It has begun when this returns: what is read then is not older than what is told.
        """
        return OneByOne(await self.begin_tracking())

    async def begin_tracking(self) -> Changes:
        """The same, those changes that came together in one list."""
        call = "saCkptCheckpointTrack"
        self.opened.check(call, READ)
        if self._own is None:
            self._own = OwnUpdates()
        service = self.service

        async def ask(kind: int, body: bytes, timeout_ns: int) -> Any:
            # Untranslated: that a session has ended is BAD_HANDLE here, and nothing to wait for.
            self.opened.check(call, READ)
            return await service.connection.call(kind, self.opened.handle, body, timeout_ns)

        def fail(error: SaAisError) -> NoReturn:
            raise service.translated(error, call) from None

        return await track(ask, service.timeout_ns, self._own, fail)


class AsyncSectionIteration:
    """A SaCkptSectionIterationHandleT: `next` until it raises NO_SECTIONS, then `finalize`."""

    def __init__(self, checkpoint: AsyncCheckpoint, iteration: Iteration) -> None:
        """Only for `section_iteration_initialize`."""
        self._checkpoint = checkpoint
        self._iteration = iteration

    async def next(self) -> SectionDescriptor:
        """The next section as it is now. Source: saCkptSectionIterationNext."""
        page, _ = page_of(await self._checkpoint.ask(self._iteration.next()))
        return self._iteration.take(page)

    async def finalize(self) -> None:
        """Source: saCkptSectionIterationFinalize."""
        self.finish()

    def finish(self) -> None:
        """The same, without a word to the service: nothing is kept there."""
        self._iteration.finalize()
