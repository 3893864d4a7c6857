"""An open checkpoint, for programs that block."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from ckpt_client.checkpoint.tracking import Changes
from ckpt_client.errors import SaAisError
from ckpt_client.leadership.lead_arguments import TTL_S, LeadArguments, LeadOptions
from ckpt_client.leadership.leadership import Leadership
from ckpt_client.leadership.leads import Leads
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Key
from ckpt_client.saf.aio import LEAD, AsyncCheckpoint, AsyncCheckpointService, AsyncSectionIteration
from ckpt_client.saf.answers import code_of
from ckpt_client.saf.checkpoint_handle import ITERATE, SafCall
from ckpt_client.saf.saf_requests import SafRequest, as_invocation, named_error, with_call_name
from ckpt_client.saf.types import DEFAULT, CheckpointDescriptor, SectionChange, SectionDescriptor
from ckpt_client.steps import Result, drive
from ckpt_protocol import codes
from ckpt_protocol.codes import SaAisErrorT
from ckpt_protocol.constants import (
    SA_CKPT_CHECKPOINT_READ,
    SA_CKPT_CHECKPOINT_WRITE,
    SA_CKPT_SECTIONS_ANY,
    SA_TIME_END,
)
from ckpt_protocol.messages import Kind

TrackCallback = Callable[["Checkpoint", list[SectionChange]], object]

logger = logging.getLogger("ckpt_client")


class Service(Protocol):
    """What a checkpoint needs of the `CheckpointService` that opened it."""

    @property
    def inner(self) -> AsyncCheckpointService: ...
    @property
    def callbacks(self) -> "CheckpointCallbacks": ...
    def check(self, call: str) -> None: ...
    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result: ...
    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> object: ...
    def ask(self, ask: SafRequest, handle: int = 0) -> Any: ...
    def begin(
        self,
        work: Callable[[], Coroutine[Any, Any, Any]],
        ended: Callable[[Any, SaAisError | None], None],
        owner: object = None,
    ) -> None: ...
    def cancel(self, owner: object) -> None: ...
    def put(self, owner: object, callback: Callable[[], object]) -> bool: ...


class Checkpoint:
    """One open of a checkpoint (SaCkptCheckpointHandleT); made by `checkpoint_open`.

    Each method has the arguments and the meaning that it has in `AsyncCheckpoint`. Raises: SaAisError, in
    every method.
    """

    def __init__(self, service: Service, inner: AsyncCheckpoint) -> None:
        """For `checkpoint_open` only."""
        self.service = service
        self._inner = inner
        self._tracking: _Tracking | None = None
        self._leads = Leads(inner.opened)
        self.tracking_error: SaAisError | None = None
        """Why the latest tracking ended on its own; None if it did not."""

    @property
    def name(self) -> bytes:
        """The checkpoint's name."""
        return self._inner.name

    @property
    def open_flags(self) -> int:
        """The flags with which the checkpoint was opened."""
        return self._inner.open_flags

    @property
    def handle(self) -> int:
        """The number of this open, unique within its service."""
        return self._inner.handle

    def _ask(self, ask: SafRequest, handle: int) -> Any:
        if self._inner.special and ask.kind == Kind.UPDATE:
            return self.service.run(self._inner.ask(ask))
        return self.service.ask(ask, handle)

    def _run(self, name: str, call: SafCall[Result]) -> Result:
        self.service.check(name)
        return drive(call, self._ask, self._inner.opened.handle)

    def close(self) -> None:
        """Source: saCkptCheckpointClose (R62 to R64)."""
        self.service.check("saCkptCheckpointClose")
        opened = self._inner.opened
        ask = opened.close()
        self.service.cancel(self)
        self._stop_tracking()
        self._leads.close()
        self.service.inner.forget(opened)
        self._ask(ask, opened.handle)

    def leave(self) -> None:
        """Do what `close` does, but without waiting; for a checkpoint that nothing has used yet."""
        self.service.begin(self._inner.close, lambda *_: None)

    def retention_duration_set(self, retention_duration: int) -> None:
        """Set how long the checkpoint is kept while no program has it open, in ns.

        Source: saCkptCheckpointRetentionDurationSet.
        """
        call = self._inner.opened.retention_duration_set(retention_duration)
        self._run("saCkptCheckpointRetentionDurationSet", call)

    def active_replica_set(self) -> None:
        """Make the local replica the active one. Source: saCkptActiveReplicaSet (R78 to R82)."""
        self._run("saCkptActiveReplicaSet", self._inner.opened.active_replica_set())

    def status_get(self) -> CheckpointDescriptor:
        """Source: saCkptCheckpointStatusGet (R83 to R87)."""
        return self._run("saCkptCheckpointStatusGet", self._inner.opened.status_get())

    def section_create(
        self, section_id: Key, expiration_time: int = SA_TIME_END, initial_data: table_requests.Value = b""
    ) -> bytes:
        """Create a section; return its id. Source: saCkptSectionCreate (R88 to R102)."""
        call = self._inner.opened.section_create(section_id, expiration_time, initial_data)
        return self._run("saCkptSectionCreate", call)

    def section_delete(self, section_id: Key) -> None:
        """Source: saCkptSectionDelete (R103)."""
        self._run("saCkptSectionDelete", self._inner.opened.section_delete(section_id))

    def section_expiration_time_set(self, section_id: Key, expiration_time: int) -> None:
        """Source: saCkptSectionExpirationTimeSet (R104)."""
        call = self._inner.opened.section_expiration_time_set(section_id, expiration_time)
        self._run("saCkptSectionExpirationTimeSet", call)

    def section_iteration(
        self, sections_chosen: int = SA_CKPT_SECTIONS_ANY, expiration_time: int | None = None
    ) -> Iterator[SectionDescriptor]:
        """Iterate over the sections, in pages: each section as it was when its page was read.

        Source: saCkptSectionIterationInitialize, ...Next (R107 to R114).
        """
        self.service.check(ITERATE)
        self._inner.opened.check_iteration(sections_chosen, expiration_time)
        return self._iterate(sections_chosen, expiration_time)

    def _iterate(self, sections_chosen: int, expiration_time: int | None) -> Iterator[SectionDescriptor]:
        for page in self._inner.opened.pages(sections_chosen, expiration_time):
            yield from self._run(ITERATE, page)

    def section_iteration_initialize(
        self, sections_chosen: int, expiration_time: int | None = None
    ) -> "SectionIteration":
        """Begin an iteration that requests one section at a time, each as it is at that moment.

        Source: saCkptSectionIterationInitialize.
        """
        self.service.check(ITERATE)
        inner = self.service.run(self._inner.section_iteration_initialize(sections_chosen, expiration_time))
        return SectionIteration(self.service, inner)

    def write(self, io_vector: Iterable[tuple[Key, table_requests.Value, int]]) -> None:
        """Write elements (section_id, data, data_offset), all or none. Source: saCkptCheckpointWrite."""
        self._run("saCkptCheckpointWrite", self._inner.opened.write(io_vector))

    def overwrite(self, section_id: Key, data: table_requests.Value) -> None:
        """Replace a section's content and size. Source: saCkptSectionOverwrite."""
        self._run("saCkptSectionOverwrite", self._inner.opened.overwrite(section_id, data))

    def read(self, io_vector: Iterable[tuple[Key, int | None, int]]) -> list[bytes]:
        """Return the data of elements (section_id, data_size, data_offset), all of the same moment.

        Source: saCkptCheckpointRead (R126 to R133).
        """
        return self._run("saCkptCheckpointRead", self._inner.opened.read(io_vector))

    def synchronize(self, timeout_ns: int = DEFAULT) -> None:
        """Wait until all replicas have what was written before this. Source: saCkptCheckpointSynchronize."""
        call = self._inner.opened.synchronize(timeout_ns, self.service.inner.timeout_ns)
        self._run("saCkptCheckpointSynchronize", call)

    def synchronize_async(self, invocation: int) -> None:
        """Begin to synchronize; a callback reports how it ended. Errors that are known at once are raised.

        Source: saCkptCheckpointSynchronizeAsync (R137, R138, R141).
        """
        call = "saCkptCheckpointSynchronizeAsync"
        self.service.check(call)
        opened = self._inner.opened
        opened.check(call, SA_CKPT_CHECKPOINT_WRITE)
        number = with_call_name(call)(as_invocation)(invocation)
        ask = opened.synchronization(call, DEFAULT, self.service.inner.timeout_ns)
        if opened.attributes.sync:
            raise named_error(
                call, codes.BAD_OPERATION, "a checkpoint with WR_ALL_REPLICAS needs no synchronization"
            )
        tell = self.service.callbacks.checkpoint_synchronize
        if tell is None:
            raise named_error(
                call, codes.SaAisErrorT.SA_AIS_ERR_INIT, "no callback for synchronization is set"
            )
        # This raises NOT_EXIST now if there is no active replica.
        self._ask(SafRequest(call, Kind.STATUS), opened.handle)

        def ended(_: Any, error: SaAisError | None) -> None:
            self.service.put(self, lambda: tell(number, code_of(error)))

        self.service.begin(lambda: self._inner.ask(ask), ended, self)

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
    ) -> Leadership:
        """Wait until this handle leads; see `AsyncCheckpoint.lead`."""
        arguments: LeadOptions = {
            "ttl": ttl,
            "watchdog": watchdog,
            "exclusive": exclusive,
            "name": name,
            "on_lost": on_lost,
            "allow_loss_on_failover": allow_loss_on_failover,
        }
        self.service.check(LEAD)
        checked, limit = self._inner.plan_lead(timeout_ns, arguments)
        try:
            return self._leads.lead(checked, limit, self._begin_to_lead)
        except SaAisError as error:
            raise self.service.inner.translated(error, LEAD) from None

    def _begin_to_lead(self, arguments: LeadArguments, on_left: Callable[[], None]) -> Leadership:
        candidacy = self.service.inner.candidacy(self._inner.opened, arguments)
        return Leadership(candidacy, arguments, self._inner.leading_error, on_left, self.service)

    # -- tracking

    def track(self, callback: "TrackCallback | None" = None, timeout_ns: int = DEFAULT) -> None:
        """Report every change from now on, except those made by this handle; see `tracking`.

        `dispatch` calls `callback(checkpoint, changes)`, by default the service's `checkpoint_track`. While
        one call is pending no other is added: later changes are collected in the next one. If the service
        ends the handle, the last change is ENDED, and `tracking_error` says why.

        Raises: SaAisError ACCESS without READ; INIT without a callback; EXIST if it is tracked already.
        """
        call = "saCkptCheckpointTrack"
        self.service.check(call)
        self._inner.opened.check(call, SA_CKPT_CHECKPOINT_READ)
        tell = callback or self.service.callbacks.checkpoint_track
        if tell is None:
            raise named_error(call, codes.SaAisErrorT.SA_AIS_ERR_INIT, "no callback for tracking is set")
        if self._tracking is not None:
            raise named_error(call, codes.EXIST, "the checkpoint is already being tracked")
        changes = self.service.run(self._inner.begin_tracking(timeout_ns))
        tracking = self._tracking = _Tracking()
        self.tracking_error = None

        def ended(_: Any, error: SaAisError | None) -> None:
            inner = self.service.inner
            if error is None or inner.finalized or self._tracking is not tracking:
                return
            logger.warning("the tracking of checkpoint %r has ended: %s", self.name, error)
            self.tracking_error = error
            last = [changes.ended()]
            self.service.put(tracking, lambda: tell(self, last))

        self.service.begin(lambda: self._tell(changes, tell, tracking), ended, tracking)

    async def _tell(self, lists: Changes, tell: "TrackCallback", tracking: "_Tracking") -> None:
        loop = asyncio.get_running_loop()
        async for changes in lists:
            told: asyncio.Future[None] = loop.create_future()

            def call(changes: list[SectionChange] = changes, told: asyncio.Future[None] = told) -> None:
                loop.call_soon_threadsafe(_settle, told)
                tell(self, changes)

            if not self.service.put(tracking, call):
                return
            await told

    def track_stop(self) -> None:
        """Report no more changes, not even those that wait for `dispatch`.

        Raises: SaAisError NOT_EXIST if it is not tracked.
        """
        call = "saCkptCheckpointTrackStop"
        self.service.check(call)
        self._inner.opened.check(call)
        if self._tracking is None:
            raise named_error(call, codes.NOT_EXIST, "the checkpoint is not being tracked")
        self._stop_tracking()

    def _stop_tracking(self) -> None:
        tracking, self._tracking = self._tracking, None
        if tracking is not None:
            self.service.cancel(tracking)


@dataclass(slots=True)
class CheckpointCallbacks:
    """The functions that `dispatch` calls. Only the call that needs a missing one fails, with ERR_INIT (R14).

    * `checkpoint_open(invocation, checkpoint, error)`: the checkpoint is None unless the error is SA_AIS_OK.
    * `checkpoint_synchronize(invocation, error)`.
    * `checkpoint_track(checkpoint, changes)`.

    Source: SaCkptCallbacksT; the third is OpenSAF's and ours.
    """

    checkpoint_open: Callable[[int, Checkpoint | None, SaAisErrorT], object] | None = None
    checkpoint_synchronize: Callable[[int, SaAisErrorT], object] | None = None
    checkpoint_track: Callable[[Checkpoint, list[SectionChange]], object] | None = None


class _Tracking:
    """The owner of the callbacks of one `track`."""


def _settle(told: "asyncio.Future[None]") -> None:
    if not told.done():
        told.set_result(None)


class SectionIteration:
    """A SaCkptSectionIterationHandleT: `next` until it raises NO_SECTIONS, then `finalize`."""

    def __init__(self, service: Service, inner: AsyncSectionIteration) -> None:
        """For `section_iteration_initialize` only."""
        self._service = service
        self._inner = inner

    def next(self) -> SectionDescriptor:
        """Return the next section as it is now. Source: saCkptSectionIterationNext."""
        self._service.check("saCkptSectionIterationNext")
        return self._service.run(self._inner.next())

    def finalize(self) -> None:
        """Source: saCkptSectionIterationFinalize."""
        self._service.check("saCkptSectionIterationFinalize")
        self._inner.finish()
