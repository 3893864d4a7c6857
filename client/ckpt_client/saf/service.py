"""The SAF checkpoint service for programs that block: what a C program does, line by line in Python.

service = CheckpointService.initialize(("B", 2, 2))
checkpoint = service.checkpoint_open("safCkpt=state", flags, attributes)
checkpoint.overwrite("key", data)
service.finalize()
"""

import os
import weakref
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self

from ckpt_client.errors import SaAisError
from ckpt_client.io.loop_thread import Cancellable, Runner, finalize_at_exit, shared_runner
from ckpt_client.requests.table_requests import Key
from ckpt_client.saf.aio import AsyncCheckpoint, AsyncCheckpointService
from ckpt_client.saf.answers import code_of
from ckpt_client.saf.callbacks import PendingCallbacks
from ckpt_client.saf.checkpoint import Checkpoint, CheckpointCallbacks
from ckpt_client.saf.saf_requests import SafRequest, as_invocation, named_error, with_call_name
from ckpt_client.saf.types import (
    DEFAULT,
    CheckpointCreationAttributes,
    DispatchFlags,
    Version,
)
from ckpt_client.saf.version import HIGHEST
from ckpt_client.steps import Result
from ckpt_protocol import codes


class CheckpointService:
    """A library instance (SaCkptHandleT), with a session of its own; made by `initialize`.

    Any thread may call any method. Callbacks are called in `dispatch` and nowhere else. A process may have
    several services. In a forked child every call of a parent's service raises BAD_HANDLE.

    Raises: SaAisError, in every method, with the SAF call's name in `call`.
    """

    def __init__(self, runner: Runner, inner: AsyncCheckpointService, callbacks: CheckpointCallbacks) -> None:
        """For `initialize` only."""
        self._runner = runner
        self._inner = inner
        self._callbacks = callbacks
        self._pending = PendingCallbacks()
        self._pid = os.getpid()
        self._under_way: dict[tuple[object, object], Cancellable] = {}
        self._let_go = weakref.finalize(self, _let_go, runner, inner, self._pending, self._pid)
        self._let_go.atexit = False

    @classmethod
    def initialize(
        cls,
        version: Version = HIGHEST,
        callbacks: CheckpointCallbacks | None = None,
        *,
        address: str | Iterable[str] | None = None,
        cluster: str = "",
        key: str | bytes | None = None,
        timeout_ns: int = DEFAULT,
    ) -> Self:
        """Begin to use the service.

        `address`, `cluster` and `key` are those of `Table`. `timeout_ns` is the time-out of every call to
        which you give none (0: 10 s).

        Raises: SaAisError VERSION (its `version` is the supported one); INVALID_PARAM; UNAVAILABLE if no node
        serves (TRY_AGAIN for programs of B.01).

        Source: saCkptInitialize (R11 to R15).
        """
        arguments = {"address": address, "cluster": cluster, "key": key, "timeout_ns": timeout_ns}
        return cls._initialize(shared_runner(), version, callbacks, **arguments)

    @classmethod
    def _initialize(
        cls, runner: Runner, version: Any, callbacks: CheckpointCallbacks | None, **arguments: Any
    ) -> Self:
        inner = runner.run(AsyncCheckpointService.initialize(version, **arguments))
        finalize_at_exit(inner)
        return cls(runner, inner, callbacks or CheckpointCallbacks())

    @property
    def version(self) -> Version:
        """The version that the service supports (R11)."""
        return self._inner.version

    @property
    def required_version(self) -> Version:
        """The version that the program asked for; below B.2 the rules of B.01 hold."""
        return self._inner.required_version

    @property
    def callbacks(self) -> CheckpointCallbacks:
        """The functions that `dispatch` calls."""
        return self._callbacks

    @property
    def pending(self) -> int:
        """How many callbacks wait for `dispatch`."""
        return len(self._pending)

    # -- the library's life cycle

    def selection_object(self) -> int:
        """Return a descriptor, always the same, that is readable while a callback is pending; for `select`.

        Source: saCkptSelectionObjectGet (R16).
        """
        call = "saCkptSelectionObjectGet"
        self.check(call)
        try:
            return self._pending.fileno()
        except OSError as error:
            text = f"a file descriptor cannot be created: {error.strerror}"
            raise named_error(call, codes.NO_RESOURCES, text) from None

    def fileno(self) -> int:
        """Return the selection object, so that `select` takes the service itself."""
        return self.selection_object()

    def dispatch(self, flags: int) -> None:
        """Call one pending callback, all of them, or every one until the service is finalized.

        What a callback raises is raised here; that callback is not called again. Source: saCkptDispatch (R17
        to R20).
        """
        call = "saCkptDispatch"
        self.check(call)
        try:
            mode = DispatchFlags(flags)
        except ValueError:
            raise named_error(call, codes.INVALID_PARAM, f"{flags!r} is not a dispatch flag") from None
        if mode is DispatchFlags.BLOCKING:
            self._dispatch_until_finalized()
            return
        for _ in range(1 if mode is DispatchFlags.ONE else len(self._pending)):
            self._check_process(call)
            callback = self._pending.take()
            if callback is None:
                return
            callback()

    def _dispatch_until_finalized(self) -> None:
        pending = self._pending
        while True:
            self._check_process("saCkptDispatch")  # A callback may have forked.
            self._runner.wait(lambda: bool(len(pending)) or pending.closed, pending.changed)
            callback = pending.take()
            if callback is not None:
                callback()
            elif pending.closed:
                return

    def finalize(self) -> None:
        """Close every checkpoint, cancel pending callbacks, end. Source: saCkptFinalize (R21, R22)."""
        self.check("saCkptFinalize")
        # From here on nothing of this service is valid, even if no node answers the DETACH.
        self._let_go.detach()
        self._pending.close()
        for task in list(self._under_way.values()):
            task.cancel()
        self._runner.run(self._inner.finalize())

    # -- checkpoints

    def checkpoint_open(
        self,
        name: Key,
        open_flags: int,
        creation_attributes: CheckpointCreationAttributes | None = None,
        *,
        timeout_ns: int = DEFAULT,
    ) -> Checkpoint:
        """Open a checkpoint. If it is missing and CREATE is set, create it.

        `timeout_ns`: 0 for the service's own, SA_TIME_MAX for no limit. Source: saCkptCheckpointOpen (R23 to
        R43).
        """
        call = "saCkptCheckpointOpen"
        self.check(call)
        plan = self._inner.plan_open(call, name, open_flags, creation_attributes, timeout_ns)
        opened: list[AsyncCheckpoint] = []
        given_up = False

        async def open_it() -> None:
            opened.append(await self._inner.open_planned(plan))
            if given_up:
                await opened[0].close()

        async def give_up() -> None:
            nonlocal given_up
            given_up = True
            if opened:
                await opened[0].close()

        try:
            self.run(open_it())
        except SaAisError:
            raise
        except BaseException:
            # We were interrupted. The checkpoint may be open, now or soon, and the program cannot close it.
            self.spawn(give_up())
            raise
        return Checkpoint(self, opened[0])

    def checkpoint_open_async(
        self,
        invocation: int,
        name: Key,
        open_flags: int,
        creation_attributes: CheckpointCreationAttributes | None = None,
    ) -> None:
        """Begin to open a checkpoint; a callback reports how it ended. Wrong arguments are raised here.

        Source: saCkptCheckpointOpenAsync (R36 to R39).
        """
        call = "saCkptCheckpointOpenAsync"
        self.check(call)
        number = with_call_name(call)(as_invocation)(invocation)
        plan = self._inner.plan_open(call, name, open_flags, creation_attributes)
        tell = self._callbacks.checkpoint_open
        if tell is None:
            raise named_error(call, codes.SaAisErrorT.SA_AIS_ERR_INIT, "no callback for opens is set")

        def ended(opened: AsyncCheckpoint | None, error: SaAisError | None) -> None:
            checkpoint = Checkpoint(self, opened) if opened is not None else None
            self._pending.put(checkpoint or self, lambda: tell(number, checkpoint, code_of(error)))

        self.begin(lambda: self._inner.open_planned(plan), ended)

    def checkpoint_unlink(self, name: Key) -> None:
        """Free a name; the data goes with the last handle. Source: saCkptCheckpointUnlink (R65 to R70)."""
        self.check("saCkptCheckpointUnlink")
        self.ask(self._inner.plan_unlink(name))

    # -- for the checkpoints

    def check(self, call: str) -> None:
        """Check that the service is this process's, and not finalized. Raises: SaAisError BAD_HANDLE."""
        self._check_process(call)
        if self._pending.closed:
            raise named_error(call, codes.BAD_HANDLE, "the service is finalized")

    def _check_process(self, call: str) -> None:
        if self._pid != os.getpid():
            raise named_error(
                call, codes.BAD_HANDLE, "the service belongs to the parent process, which forked this one"
            )

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the loop and wait until it has ended."""
        return self._runner.run(coroutine)

    def ask(self, ask: SafRequest, handle: int = 0) -> Any:
        """Make one request; return the answer's payload."""
        inner = self._inner
        timeout_ns = ask.timeout_ns or inner.timeout_ns
        try:
            return self._runner.ask(inner.connection, ask.kind, handle, ask.body, timeout_ns)
        except SaAisError as error:
            raise inner.translated(error, ask.call) from None

    def begin(
        self,
        work: Callable[[], Coroutine[Any, Any, Any]],
        ended: Callable[[Any, SaAisError | None], None],
        owner: object = None,
    ) -> None:
        """Start an asynchronous call. The loop passes its outcome to `ended`, unless `owner` is cancelled."""
        token = object(), owner
        over = False

        async def see_to_its_end() -> None:
            nonlocal over
            try:
                result = await work()
            except SaAisError as error:
                ended(None, error)
            else:
                ended(result, None)
            finally:
                over = True
                self._under_way.pop(token, None)

        self._under_way[token] = self._runner.spawn(see_to_its_end())
        if over:  # It had ended before we added it.
            self._under_way.pop(token, None)

    def cancel(self, owner: object) -> None:
        """Forget what is pending, or under way, for one checkpoint (R63)."""
        for token, task in list(self._under_way.items()):
            if token[1] is owner:
                task.cancel()
                self._under_way.pop(token, None)
        self._pending.cancel(owner)

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> Cancellable:
        """Start a coroutine without waiting for it."""
        return self._runner.spawn(coroutine)

    def put(self, owner: object, callback: Callable[[], object]) -> bool:
        """Add a callback for `dispatch`. Return False if its owner is cancelled or the service finalized."""
        return self._pending.put(owner, callback)

    @property
    def inner(self) -> AsyncCheckpointService:
        """The asyncio service behind this one."""
        return self._inner


def _let_go(runner: Runner, inner: AsyncCheckpointService, pending: PendingCallbacks, pid: int) -> None:
    """End the session of a service that the program has dropped without finalizing it.

    The garbage collector may call this anywhere, even while a lock is held, so it waits for nothing.
    """
    if pid != os.getpid():
        return
    pending.close()
    leaving = inner.leave()
    try:
        runner.spawn(leaving)
    except RuntimeError:  # Its loop is closed.
        leaving.close()
