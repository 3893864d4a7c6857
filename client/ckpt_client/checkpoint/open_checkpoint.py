"""An open checkpoint, without I/O: its handle, and how it is opened again when the handle is lost.

A session ends when it has had no node for its grace time, or when every node was restarted. After a fork the
session stays with the parent. In each case the next call opens the checkpoint again, in a new session:

* If it is still the same creation of the checkpoint, the call continues and its caller notices nothing.
* If it is not, the call fails once with NOT_EXIST and says so, because what the program knows about the
  checkpoint is no longer true. The call after that opens the checkpoint as the program did at first, and may
  create it.
* A call that may have been done when the session ended fails with TIMEOUT. It is never repeated in the new
  session, which knows nothing of it.

Two drivers carry out the steps: `table_driver` for `Table`, `async_table_driver` for `AsyncTable`.
"""

import contextlib
import logging
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ckpt_client.checkpoint.leadership_state import LeadershipState
from ckpt_client.errors import (
    CheckpointEnded,
    CheckpointError,
    CheckpointKeyError,
    LeadershipEnded,
    LeadershipLost,
    SaAisError,
    error_of,
)
from ckpt_client.requests import table_requests
from ckpt_client.requests.table_requests import Attributes, Key, OpenParameters
from ckpt_client.steps import Request, Steps
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.messages import Kind

logger = logging.getLogger("aspCheckpoint")

ACTIVATIONS_MAX: Final = 3
"""How often one call activates the local replica before it reports that there is no active one."""


class Counts(NamedTuple):
    """What has happened to a table since it was opened."""

    moved: int
    """How often its session was attached again, to another node or to the same one."""

    reopened: int
    """How often its checkpoint was opened again in a new session."""


@dataclass(slots=True)
class Reopen:
    """The step "open the checkpoint again, unless another caller just did". Its answer is the new handle."""

    lost: int
    """The handle that is dead; 0 if there was none."""

    refusal: SaAisError | None = None
    """The error that said so: what the driver raises if it cannot open the checkpoint again now."""


@dataclass(slots=True)
class BeginAgain:
    """The step "begin again, if there is time left"; else the call is TRY_AGAIN with this text."""

    text: str


TableStep = Request | Reopen | BeginAgain


class OpenCheckpoint:
    """One open checkpoint of a table: what is known of it, and the steps of a call."""

    def __init__(self, name: Key, opening: OpenParameters, timeout_ns: int) -> None:
        self.name = name
        """The name as the program wrote it, for messages."""

        self.opening = opening
        self.timeout_ns = timeout_ns
        """The time-out of a call to which the program gives none."""

        self.attributes: Attributes
        """The attributes in force, once it was opened, as an answer showed them last."""

        self.handle = 0
        """0 while it is not open."""

        self.creation_id = 0
        """Which creation of the checkpoint it is. 0: the next open may be of any, and may create it."""

        self.closed = False
        self.reopened = 0
        self.auto_activate = True
        """A call that finds no active replica activates the local one."""

        self.leadership: LeadershipState | None = None
        """The leadership that the program has not left yet, lost or not."""

    def may_activate(self) -> bool:
        """Return True if a call may activate the local replica where none is active."""
        return self.auto_activate and self.opening.writable and self.attributes.may_lack_active

    # -- a call

    def ask(self, kind: int, body: bytes, may_activate: bool = True) -> Steps[TableStep, Any]:
        """Make one call; if no replica is active and we may, activate the local one and repeat the call."""
        leadership = self.leadership
        if leadership is None or kind != Kind.UPDATE:
            return (yield from self._ask(kind, body, may_activate))
        while True:
            sent_ns = leadership.check()
            try:
                answer = yield from self._ask(kind, leadership.sign(body), may_activate)
            except SaAisError as error:
                leadership.take_refusal(error)
                continue
            leadership.renew(sent_ns)
            return answer

    def _ask(self, kind: int, body: bytes, may_activate: bool) -> Steps[TableStep, Any]:
        handle = self.handle or (yield from self.reopen())
        try:
            return (yield kind, handle, body)
        except SaAisError as error:
            refusal = error
        return (yield from self.recover(kind, body, may_activate, handle, refusal))

    def recover(
        self, kind: int, body: bytes, may_activate: bool, lost: int, refusal: SaAisError
    ) -> Steps[TableStep, Any]:
        """Continue a call whose first request, with the `lost` handle, was refused."""
        try:
            return (yield from self._repeat(kind, body, lost, refusal))
        except SaAisError as error:
            refusal = error
        return (yield from self._activate(kind, body, may_activate, refusal))

    def recover_as_leader(
        self, body: bytes, may_activate: bool, lost: int, refusal: SaAisError
    ) -> Steps[TableStep, Any]:
        """Do what `recover` does, for an update whose first request carried the leader's token."""
        leadership = self.leadership
        if leadership is not None:
            try:
                return (
                    yield from self.recover(Kind.UPDATE, leadership.sign(body), may_activate, lost, refusal)
                )
            except SaAisError as error:
                leadership.take_refusal(error)
        return (yield from self.ask(Kind.UPDATE, body, may_activate))

    def _call(self, kind: int, body: bytes) -> Steps[TableStep, Any]:
        handle = self.handle or (yield from self.reopen())
        try:
            return (yield kind, handle, body)
        except SaAisError as error:
            refusal = error
        return (yield from self._repeat(kind, body, handle, refusal))

    def _repeat(self, kind: int, body: bytes, lost: int, refusal: SaAisError) -> Steps[TableStep, Any]:
        """Repeat a request in a new session, if it was refused because the old one has ended.

        This is safe: BAD_HANDLE means that nothing was done. What may have been done fails with TIMEOUT.
        """
        if refusal.code != codes.BAD_HANDLE or self.closed:
            raise refusal
        handle = yield Reopen(lost, refusal)
        return (yield kind, handle, body)

    def _activate(
        self, kind: int, body: bytes, may_activate: bool, refusal: SaAisError
    ) -> Steps[TableStep, Any]:
        """Activate the local replica and repeat the call, if it was refused because no replica is active."""
        possible = may_activate and kind != Kind.ACTIVE_SET and self.may_activate()
        if not possible or not lacks_active(refusal):
            raise refusal
        for _ in range(ACTIVATIONS_MAX):
            logger.info("checkpoint %r has no active replica: activating the local one", self.name)
            try:
                yield from self._call(Kind.ACTIVE_SET, pack_body([True]))
            except SaAisError as error:
                if error.code != codes.TIMEOUT:
                    raise
                # A view may have taken the role away again. If our own time is over, the call below says so.
            try:
                return (yield from self._call(kind, body))
            except SaAisError as error:
                if not lacks_active(error):
                    raise
                refusal = error
        raise refusal

    # -- opening

    def open(self) -> Steps[Request, None]:
        """Open the checkpoint as the program did at first."""
        self._take_opened((yield Kind.OPEN, 0, self.opening.body))

    def open_again(self) -> Steps[Request, None]:
        """Open the checkpoint in a new session. Raises: CheckpointEnded if it is gone."""
        if not self.creation_id:
            # The caller has received CheckpointEnded, or the checkpoint was never open.
            yield from self.open()
        else:
            try:
                payload = yield from open_creation(self.opening.again, self.creation_id)
            except SaAisError as error:
                if error.code != codes.NOT_EXIST:
                    raise
                self.creation_id = 0
                raise table_requests.ended("its name is free") from None
            if payload is None:
                self.creation_id = 0
                raise table_requests.ended("its name belongs to another checkpoint")
            self._take_opened(payload)
        self.reopened += 1

    def reopen(self) -> Steps[TableStep, int]:
        """Return the handle; if there is none, open the checkpoint again first."""
        if self.closed:
            raise self.closed_error()
        handle: int = self.handle or (yield Reopen(0))
        return handle

    def _take_opened(self, payload: Any) -> None:
        handle, self.attributes = table_requests.parse_open_answer(payload)
        self.creation_id = payload[1]
        self.handle = handle

    # -- errors

    def failure(self, what: str, error: SaAisError, key_error: bool = False) -> CheckpointError:
        """Return what the program gets for an error of the service: "cannot write to checkpoint 'x': ..."."""
        kind = CheckpointKeyError if key_error and is_missing(error) else CheckpointError
        if isinstance(error, LeadershipEnded):
            kind = LeadershipLost
        return kind(error, f"cannot {what} checkpoint {self.name!r}: {error.text}")

    def closed_error(self) -> SaAisError:
        """Return the error of a call after `close`."""
        return error_of(codes.BAD_HANDLE, "the table is closed")


def open_creation(body: bytes, creation_id: int) -> Steps[Request, Any]:
    """Open a checkpoint; return the answer's payload, or None if it is not this creation any more."""
    payload = yield Kind.OPEN, 0, body
    handle, _ = table_requests.parse_open_answer(payload)
    if payload[1] == creation_id:
        return payload
    # The caller has to know that its checkpoint is gone. The session repeats a CLOSE that was not answered.
    with contextlib.suppress(SaAisError):
        yield Kind.CLOSE, handle, table_requests.EMPTY_BODY
    return None


def is_missing(error: SaAisError) -> bool:
    """Return True if the call failed because a section does not exist."""
    return error.code == codes.NOT_EXIST and error.index >= 0


def lacks_active(error: SaAisError) -> bool:
    """Return True if the call failed because the checkpoint has no active replica."""
    return error.code == codes.NOT_EXIST and error.index < 0 and not isinstance(error, CheckpointEnded)
