"""What a leadership shows of itself, for `Leadership` and `AsyncLeadership`."""

import logging
import os
from collections.abc import Callable
from typing import Any

from ckpt_client.checkpoint.leadership_state import SECOND_NS
from ckpt_client.errors import LeadershipEnded, SaAisError
from ckpt_client.leadership.candidacy import Candidacy
from ckpt_client.leadership.lead_arguments import LeadArguments, default_name, program_name
from ckpt_client.requests.table_requests import refuse
from ckpt_protocol import codes

Fail = Callable[[str, SaAisError], Exception]
"""Returns the error that the program gets: "lead", and the error of the service."""

logger = logging.getLogger("aspCheckpoint")


class LeadershipFacts:
    """One leadership of the program. `on_left` is called once the program has left it."""

    def __init__(
        self, candidacy: Candidacy, arguments: LeadArguments, fail: Fail, on_left: Callable[[], None]
    ) -> None:
        self._candidacy = candidacy
        self._state = candidacy.state
        self._arguments = arguments
        self._fail = fail
        self._on_left = on_left
        self._blocks = 1
        self._left = False
        self._pid = os.getpid()

    @property
    def token(self) -> str:
        """The fencing token: text of a fixed width. That of a later leader compares greater."""
        return self._state.token.text

    @property
    def token_int(self) -> int:
        """The fencing token as a number of 168 bits."""
        return self._state.token.number

    @property
    def position(self) -> int:
        """The position of the grant in the checkpoint's updates, as `SectionChange.sequence` counts them."""
        return self._state.token.position

    @property
    def valid_for(self) -> float:
        """For how many seconds the program leads unless it renews; 0.0 if it leads no more."""
        return self._state.valid_for_ns / SECOND_NS

    @property
    def data_may_be_lost(self) -> bool:
        """True if an asynchronous checkpoint may have lost updates that a leader was acknowledged.

        It is set before the next write is acknowledged.
        """
        return self._state.data_may_be_lost

    def check(self) -> None:
        """Raise LeadershipLost if the program leads no more. This makes no request."""
        try:
            self._state.check()
        except LeadershipEnded as error:
            raise self._fail("act as the leader of", error) from None

    @property
    def resigned(self) -> bool:
        """True once the program has left the leadership itself, before it was lost."""
        return self._state.leaving and not self._state.lost

    async def over(self) -> None:
        """Wait, on the loop that renews, until the program leads no more."""
        await self._candidacy.over()

    # -- for the table

    def enter_again(self, arguments: LeadArguments) -> bool:
        """Count one more block that leads with this; return False if the program is just leaving it.

        Raises: SaAisError INVALID_PARAM for other arguments; LeadershipEnded if it is lost.
        """
        if self._blocks == 0 or self.resigned:
            return False
        self._state.check()
        for field, wanted, present in zip(LeadArguments._fields, arguments, self._arguments, strict=True):
            if wanted == present or (field == "name" and wanted == default_name()):
                continue
            text = f"this table leads already, with another {field.removesuffix('_ns')}"
            text += f": {_as_given(field, present)!r}, not {_as_given(field, wanted)!r}"
            refuse(codes.INVALID_PARAM, text)
        self._blocks += 1
        return True

    # -- the end

    def _successor(self, to: Any) -> str | None:
        """Check the successor's name. Raises: what the program gets."""
        try:
            return None if to is None else program_name(to, "to")
        except SaAisError as error:
            raise self._fail("resign from", error) from None

    def _is_elsewhere(self) -> bool:
        """Return True in a forked child: the parent leads, and the child has only to forget it."""
        if self._pid == os.getpid():
            return False
        self._leave()
        return True

    def _leave(self) -> None:
        """The program has left the leadership: its table writes without a token again."""
        if not self._left:
            self._left = True
            self._on_left()

    def _report_loss(self) -> None:
        logger.warning(
            "checkpoint %r: this program leads no more: %s", self._candidacy.name, self._state.ended
        )

    def _call_on_lost(self) -> None:
        if self._arguments.on_lost is None:
            return
        try:
            self._arguments.on_lost()
        except BaseException:
            logger.exception("the function on_lost of checkpoint %r failed", self._candidacy.name)

    def __repr__(self) -> str:
        state = f"ended: {self._state.ended}" if self._state.ended else f"token {self.token}"
        return f"<{type(self).__name__} of {self._candidacy.name!r}, {state}>"


def _as_given(field: str, argument: Any) -> Any:
    """Return an argument of `lead` as the program gives it: times in seconds."""
    return argument / SECOND_NS if field.endswith("_ns") and argument is not None else argument
