"""Requests that wait at a node until something happens to their checkpoint, or until their time is over."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.messages import answer_error
from ckptd.core.client_request import Request
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.hub import Hub
from ckptd.core.requests.turn_budget import TOO_MANY_TRACKERS, TRACKERS_MAX, Turns
from ckptd.core.settings import SECOND_NS

TRACK_WAIT_NS: Final = 10 * SECOND_NS
"""A TRACK is answered after this time at the latest, even if nothing changed.

So whatever went wrong with it on its way ends with that.
"""

ANSWERS_PER_EVENT_MAX: Final = 512
"""TRACKs that one event answers because their time is over. The rest follow with the next heartbeat."""


class WaitingReads(ABC):
    """The requests of one kind that wait here."""

    def __init__(self, context: Context, hub: Hub, turns: Turns) -> None:
        self.context = context
        self.hub = hub
        self.turns = turns
        self.waiting: dict[int, dict[tuple[int | str, int, int], Request]] = {}
        """By creation id, then by origin, session and request number.

        A repeated request replaces the earlier one, but not one that came another way: the client reads the
        answer where it is now (seed 7215794).
        """
        self.count = 0
        self.due_ns = NEVER_NS
        """No waiting request has to be answered before this time."""

    @abstractmethod
    def answer_unchanged(self, request: Request) -> None:
        """Answer a request whose time is over."""

    def wait(self, request: Request) -> None:
        """Keep a request until something happens to its checkpoint."""
        key = request.origin, request.session, request.number
        earlier = self.waiting.get(request.creation_id, {}).pop(key, None)
        if earlier is not None:
            self.count -= 1
            request.received_ns = earlier.received_ns  # Otherwise one that is repeated would wait for ever.
            self.turns.remove_unanswered(earlier)
        excess = TOO_MANY_TRACKERS if self.count >= TRACKERS_MAX else self.turns.add_tracker(request)
        if excess:
            self.hub.answer(request, answer_error(codes.TRY_AGAIN, excess))
            return
        self.count += 1
        self.waiting.setdefault(request.creation_id, {})[key] = request
        self.due_ns = min(self.due_ns, request.received_ns + TRACK_WAIT_NS)

    def recheck(self, creation_ids: Iterable[int]) -> None:
        """Try the TRACKs of these checkpoints again: something happened to them, or to who serves them."""
        if not self.count:
            return
        for creation_id in creation_ids:
            waiting = self.waiting.pop(creation_id, {})
            self.count -= len(waiting)
            self.hub.retry(list(waiting.values()))

    def pop_all(self) -> list[Request]:
        """Remove and return every request that waits: a new view begins."""
        taken = [request for waiting in self.waiting.values() for request in waiting.values()]
        self.waiting, self.count = {}, 0
        return taken

    def on_time(self) -> None:
        """Answer the requests that have waited for `TRACK_WAIT_NS`."""
        if self.context.now_ns < self.due_ns:
            return
        expired_ns = self.context.now_ns - TRACK_WAIT_NS
        remaining = ANSWERS_PER_EVENT_MAX
        self.due_ns = NEVER_NS
        for creation_id, waiting in list(self.waiting.items()):
            for key, request in list(waiting.items()):
                if request.received_ns <= expired_ns and remaining:
                    remaining -= 1
                    del waiting[key]
                    self.count -= 1
                    self.answer_unchanged(request)
                else:
                    self.due_ns = min(self.due_ns, request.received_ns + TRACK_WAIT_NS)
            if not waiting:
                del self.waiting[creation_id]
