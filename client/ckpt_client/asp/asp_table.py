"""`aspCheckpoint.Table` for programs that also use the module `asp`: its functions accept a table's handles.

In ASP, a table's `svcHdl` and `ckptHdl` were the handles that `saCkptInitialize` and `saCkptCheckpointOpen`
had returned, and programs used them for calls that `Table` does not offer. Here they stand for the table's
own session and open checkpoint. They refer to the table weakly, so that a table that the program drops is
collected as usual.
"""

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from ckpt_client.asp.functions import checkpoints, iterations, services
from ckpt_client.asp.table import Table
from ckpt_client.errors import CheckpointError, SaAisError, error_of
from ckpt_client.io.blocking_connection import Connection
from ckpt_client.io.time_limit import TimeLimit
from ckpt_client.requests import table_requests
from ckpt_client.steps import Result, drive
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_TIME_END
from ckpt_protocol.messages import Kind

if TYPE_CHECKING:
    from ckpt_client.saf import CheckpointService
    from ckpt_client.saf.checkpoint_handle import CheckpointHandle, Iteration, SafCall
    from ckpt_client.saf.saf_requests import SafRequest
    from ckpt_client.saf.types import CheckpointDescriptor, SectionDescriptor

ASP_VERSION = ("B", 1, 1)
"""The version of the interface that ASP's `Table` asked for."""


class AspTable(Table):
    """A `Table` with handles for the functions of `asp`: `svcHdl` and `ckptHdl`, 0 once closed.

    A function that gets such a handle acts through the table: in its session, on its open checkpoint, at its
    node. No function activates a replica on its own.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        address = named.get("address")
        if address is not None and not isinstance(address, str):
            named["address"] = address = list(address)
        self._reached = {
            "address": address,
            "cluster": named.get("cluster", ""),
            "key": named.get("key"),
        }
        self._numbers = 0, 0
        super().__init__(*arguments, **named)
        self._service = TableService(self)
        self._checkpoint = TableCheckpoint(self, self._operations.opening)
        service = services.issue(self._service)
        self._numbers = service, checkpoints.issue(self._checkpoint, service)
        weakref.finalize(self, _forget, service).atexit = False

    @property
    def svcHdl(self) -> int:
        """The service handle, for `asp.saCkptCheckpointUnlink` and the like; 0 once closed."""
        return self._numbers[0]

    @property
    def ckptHdl(self) -> int:
        """The checkpoint handle, for `asp.saCkptSectionExpirationTimeSet` and the like; 0 once closed."""
        return self._numbers[1]

    def SetAutoActivate(self, autoActivate: bool = True) -> None:
        """Set whether a call that finds no active replica activates the local one.

        This holds for this table and for those opened later.
        """
        super().SetAutoActivate(autoActivate)

    def close(self) -> None:
        """Close the checkpoint and the connection. Closing again does nothing."""
        service, self._numbers = self._numbers[0], (0, 0)
        _forget(service)
        super().close()
        self._service.end()

    def close_checkpoint(self) -> None:
        """Close only the checkpoint, as `asp.saCkptCheckpointClose` does; the session stays."""
        operations = self._operations
        operations.closed = True
        self._leads.close()
        handle, operations.handle = operations.handle, 0
        self._numbers = self._numbers[0], 0
        if handle:
            self._call_service(Kind.CLOSE, handle, table_requests.EMPTY_BODY, operations.timeout_ns)

    @property
    def connection(self) -> Connection:
        """The table's session."""
        return self._connection

    @property
    def timeout_ns(self) -> int:
        """The time-out of a call to which the program gives none."""
        return self._operations.timeout_ns

    @property
    def reached(self) -> dict[str, Any]:
        """The arguments with which the table reaches the service: address, cluster, key."""
        return self._reached

    def ask(self, ask: "SafRequest") -> Any:
        """Make one SAF call with this table's handle; return the answer's payload. Raises: SaAisError."""
        timeout_ns = ask.timeout_ns or self._operations.timeout_ns
        try:
            return self._ask(ask.kind, ask.body, timeout_ns / 1e9, may_activate=False)
        except CheckpointError as error:  # The table could not open the checkpoint again.
            raise error.aspErrorCode from None
        except SaAisError as error:
            error.call = ask.call
            raise


def _forget(service: int) -> None:
    services.forget(service)
    for checkpoint in checkpoints.forget_owned(service):
        iterations.forget_owned(checkpoint)


def _ask_table(ask: "SafRequest", table: AspTable) -> Any:
    return table.ask(ask)


class TableCheckpoint:
    """The SAF's calls on a table's open checkpoint; see `saf.Checkpoint`. Raises: SaAisError."""

    def __init__(self, table: AspTable, opening: table_requests.OpenParameters) -> None:
        self._table = weakref.ref(table)
        self._opening = opening
        self._attributes = table.attributes
        self._opened_once: CheckpointHandle | None = None

    @property
    def table(self) -> AspTable:
        """The table. Raises: SaAisError BAD_HANDLE once the table is gone."""
        table = self._table()
        if table is None:
            raise error_of(codes.BAD_HANDLE, "the table is gone")
        return table

    @property
    def _opened(self) -> "CheckpointHandle":
        if self._opened_once is None:
            from ckpt_client.saf.checkpoint_handle import CheckpointHandle

            name, open_flags, *_ = self._opening
            self._opened_once = CheckpointHandle(name, open_flags, 0, self._attributes, False)
        return self._opened_once

    def _run(self, call: "SafCall[Result]") -> Result:
        return drive(call, _ask_table, self.table)

    def close(self) -> None:
        """See saCkptCheckpointClose."""
        self.table.close_checkpoint()

    def retention_duration_set(self, retention_duration: int) -> None:
        """See saCkptCheckpointRetentionDurationSet."""
        self._run(self._opened.retention_duration_set(retention_duration))

    def active_replica_set(self) -> None:
        """See saCkptActiveReplicaSet."""
        self._run(self._opened.active_replica_set())

    def status_get(self) -> "CheckpointDescriptor":
        """See saCkptCheckpointStatusGet."""
        return self._run(self._opened.status_get())

    def section_create(
        self,
        section_id: table_requests.Key,
        expiration_time: int = SA_TIME_END,
        initial_data: table_requests.Value = b"",
    ) -> bytes:
        """See saCkptSectionCreate."""
        return self._run(self._opened.section_create(section_id, expiration_time, initial_data))

    def section_delete(self, section_id: table_requests.Key) -> None:
        """See saCkptSectionDelete."""
        self._run(self._opened.section_delete(section_id))

    def section_expiration_time_set(self, section_id: table_requests.Key, expiration_time: int) -> None:
        """See saCkptSectionExpirationTimeSet."""
        self._run(self._opened.section_expiration_time_set(section_id, expiration_time))

    def section_iteration_initialize(
        self, sections_chosen: int, expiration_time: int | None = None
    ) -> "TableIteration":
        """See saCkptSectionIterationInitialize."""
        return TableIteration(self, self._run(self._opened.iterate(sections_chosen, expiration_time)))

    def write(self, io_vector: Any) -> None:
        """See saCkptCheckpointWrite."""
        self._run(self._opened.write(io_vector))

    def overwrite(self, section_id: table_requests.Key, data: table_requests.Value) -> None:
        """See saCkptSectionOverwrite."""
        self._run(self._opened.overwrite(section_id, data))

    def read(self, io_vector: Any) -> list[bytes]:
        """See saCkptCheckpointRead."""
        return self._run(self._opened.read(io_vector))

    def synchronize(self, timeout_ns: int = 0) -> None:
        """See saCkptCheckpointSynchronize."""
        self._run(self._opened.synchronize(timeout_ns, self.table.timeout_ns))

    def synchronize_async(self, invocation: int) -> None:
        """See saCkptCheckpointSynchronizeAsync. Raises: SaAisError INIT: a table has no callbacks (R138)."""
        raise error_of(codes.SaAisErrorT.SA_AIS_ERR_INIT, "a table's service has no callbacks")


class TableIteration:
    """An iteration over a table's sections; see `saf.SectionIteration`."""

    def __init__(self, checkpoint: TableCheckpoint, iteration: "Iteration") -> None:
        self._checkpoint = checkpoint
        self._iteration = iteration

    def next(self) -> "SectionDescriptor":
        """See saCkptSectionIterationNext."""
        return self._checkpoint._run(self._iteration.next())

    def finalize(self) -> None:
        """See saCkptSectionIterationFinalize."""
        self._iteration.finalize()


class TableService:
    """A table's session as the SAF's service, without callbacks; see `saf.CheckpointService`.

    `checkpoint_unlink` and `finalize` use the table's session. The other calls use a service of their own,
    at the same address, which is made when the first of them needs it.
    """

    def __init__(self, table: AspTable) -> None:
        self._table = weakref.ref(table)
        self._made: CheckpointService | None = None

    def _live(self) -> AspTable:
        table = self._table()
        if table is None:
            raise error_of(codes.BAD_HANDLE, "the table is gone")
        return table

    def _service(self, limit: TimeLimit | None = None) -> "CheckpointService":
        """Return the service. If there is none, make it first: within the limit, if one is given."""
        if self._made is None:
            from ckpt_client.saf import CheckpointService
            from ckpt_client.saf.types import TIMEOUT_NS

            limit_ns = TIMEOUT_NS if limit is None else limit.left_ns()
            reached = self._live().reached
            self._made = CheckpointService.initialize(ASP_VERSION, timeout_ns=limit_ns, **reached)
            self._made.inner.timeout_ns = TIMEOUT_NS  # That of its later calls.
        return self._made

    def selection_object(self) -> int:
        """See saCkptSelectionObjectGet."""
        return self._service().selection_object()

    def dispatch(self, flags: int) -> None:
        """See saCkptDispatch."""
        self._service().dispatch(flags)

    def finalize(self) -> None:
        """See saCkptFinalize. This closes the table."""
        self._live().close()

    def end(self) -> None:
        """End the service that was made for the table, which is closed.

        This raises nothing, so that a `with` block ends with the program's own error. In a forked child there
        is nothing to end: the service is the parent's.
        """
        made, self._made = self._made, None
        if made is not None:
            with contextlib.suppress(SaAisError):
                made.finalize()

    def checkpoint_open(
        self, name: table_requests.Key, open_flags: int, creation_attributes: Any, *, timeout_ns: int
    ) -> Any:
        """See saCkptCheckpointOpen."""
        from ckpt_client.saf.saf_requests import as_timeout, with_call_name
        from ckpt_client.saf.types import TIMEOUT_NS

        limit_ns = with_call_name("saCkptCheckpointOpen")(as_timeout)(timeout_ns, TIMEOUT_NS)
        limit = TimeLimit(None, limit_ns)
        service = self._service(limit)
        return service.checkpoint_open(name, open_flags, creation_attributes, timeout_ns=limit.left_ns())

    def checkpoint_open_async(
        self, invocation: int, name: table_requests.Key, open_flags: int, creation_attributes: Any
    ) -> None:
        """See saCkptCheckpointOpenAsync. Raises: SaAisError INIT: a table has no callbacks."""
        self._service().checkpoint_open_async(invocation, name, open_flags, creation_attributes)

    def checkpoint_unlink(self, name: table_requests.Key) -> None:
        """See saCkptCheckpointUnlink."""
        table = self._live()
        table.connection.unlink(name, table.timeout_ns / 1e9)
