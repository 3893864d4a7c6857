"""Check opens, closes and unlinks: find answers that no correct directory could have given.

This is a check from outside: of each call with its times and its outcome. `OpenCloseHistory` also knows which
handles may be open at the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ckpt_protocol import codes
from ckptd.sim.checkers.history import Outcome

Handle = tuple[int, int]
"""A session and the number of its OPEN."""


@dataclass(slots=True)
class DirectoryCall:
    """One OPEN or UNLINK of a name. Times are world times. An OPEN's `creation_id` is that of its answer."""

    name: bytes
    invoked_ns: int
    returned_ns: int = -1
    outcome: Outcome = Outcome.PENDING
    code: int = 0
    creation_id: int = 0
    secret: int = 0
    """What an UNLINK proves with that it comes from the leader; 0: nothing."""

    def end(self, now_ns: int, outcome: Outcome, code: int, creation_id: int = 0) -> None:
        """Note the answer that the caller got."""
        self.returned_ns, self.outcome, self.code, self.creation_id = now_ns, outcome, code, creation_id

    @property
    def may_be_done(self) -> bool:
        """True if the call took effect, may have, or may yet."""
        return self.outcome in (Outcome.OK, Outcome.PENDING, Outcome.UNKNOWN)


@dataclass(slots=True)
class HandleHistory:
    """What is known of a handle."""

    name: bytes
    opened_ns: int
    creation_id: int = 0
    certain: bool = False
    """True if the handle is certainly open; False if it may be."""

    released_ns: int = -1
    """Since when it is no longer certainly open; -1 if it still is."""

    retention_ns: int = 0


@dataclass(slots=True)
class OpenCloseHistory:
    """All opens and unlinks, and every handle that was ever open, or may have been."""

    opens: list[DirectoryCall] = field(default_factory=list)
    unlinks: list[DirectoryCall] = field(default_factory=list)
    handles: dict[Handle, HandleHistory] = field(default_factory=dict)
    closed: list[HandleHistory] = field(default_factory=list)

    def unlinked_since(self, name: bytes, since_ns: int) -> bool:
        """Return True if an UNLINK of the name may have been done after that time."""
        return any(
            call.name == name
            and call.may_be_done
            and (call.outcome != Outcome.OK or call.returned_ns >= since_ns)
            for call in self.unlinks
        )

    def begin_open(self, handle: Handle, name: bytes, retention_ns: int, now_ns: int) -> DirectoryCall:
        """An OPEN is sent: it may be done from now on."""
        call = DirectoryCall(name, now_ns)
        self.opens.append(call)
        self.handles[handle] = HandleHistory(name, now_ns, retention_ns=retention_ns)
        return call

    def opened(self, handle: Handle, creation_id: int) -> None:
        """The OPEN was answered."""
        history = self.handles.get(handle)
        if history is not None:
            history.creation_id, history.certain = creation_id, True

    def release(self, handle: Handle, now_ns: int) -> None:
        """A CLOSE is sent, or its client has died: the handle may be closed from now on."""
        history = self.handles.get(handle)
        if history is not None and history.released_ns < 0:
            history.certain, history.released_ns = False, now_ns

    def gone(self, handle: Handle) -> None:
        """The handle is certainly no longer open."""
        history = self.handles.pop(handle, None)
        if history is not None:
            self.closed.append(history)

    def session_over(self, session: int, since_ns: int, ended: bool) -> None:
        """All of a session's handles may be closed since then; with `ended`, they certainly are."""
        for handle in [handle for handle in self.handles if handle[0] == session]:
            self.release(handle, since_ns)
            if ended:
                self.gone(handle)

    def uncertain(self, session: int) -> list[int]:
        """Return the numbers of a session's handles that may or may not be open."""
        return [
            number for (of, number), history in self.handles.items() if of == session and not history.certain
        ]

    def count(self, name: bytes, creation_id: int) -> tuple[int, int]:
        """Return how often a checkpoint is open at least and at most."""
        of_it = [h for h in self.handles.values() if h.creation_id == creation_id]
        unanswered = [h for h in self.handles.values() if not h.creation_id and h.name == name]
        return sum(history.certain for history in of_it), len(of_it) + len(unanswered)


def check_open_close(
    open_close: OpenCloseHistory, is_lost: Callable[[int], bool], skew: float, tolerance_ns: int
) -> list[str]:
    """Check the names. Return the contradictions.

    * A name means one checkpoint at a time.
    * An unlinked checkpoint does not come back.
    * A retention is not cut short.
    """
    wrong: list[str] = []
    names = dict.fromkeys(call.name for call in open_close.opens)
    for name in names:
        opens = [c for c in open_close.opens if c.name == name and c.outcome == Outcome.OK]
        unlinks = [c for c in open_close.unlinks if c.name == name]
        wrong.extend(_out_of_order(opens))
        wrong.extend(_unlinked_and_back(opens, unlinks))
        wrong.extend(_unlinked_twice(opens, unlinks, is_lost))
        wrong.extend(_expired_early(open_close, opens, unlinks, is_lost, skew, tolerance_ns))
    return wrong


def _out_of_order(opens: list[DirectoryCall]) -> Iterator[str]:
    """Creation ids grow: an older checkpoint is never found again once a newer one has its name."""
    newest_before = 0
    ends = sorted(opens, key=lambda call: call.returned_ns)
    position = 0
    for call in sorted(opens, key=lambda call: call.invoked_ns):
        while position < len(ends) and ends[position].returned_ns < call.invoked_ns:
            newest_before = max(newest_before, ends[position].creation_id)
            position += 1
        if call.creation_id < newest_before:
            yield (
                f"{call.name!r} first meant {newest_before:x}, then {call.creation_id:x} again, at "
                f"{call.returned_ns / 1e6:.3f} ms"
            )


def _unlinked_and_back(opens: list[DirectoryCall], unlinks: list[DirectoryCall]) -> Iterator[str]:
    """A name no longer means, after an UNLINK ended, what was opened before that UNLINK began."""
    for unlink in unlinks:
        if unlink.outcome != Outcome.OK:
            continue
        before = max((c.creation_id for c in opens if c.returned_ns < unlink.invoked_ns), default=0)
        for call in opens:
            if call.invoked_ns > unlink.returned_ns and call.creation_id <= before:
                yield (
                    f"{call.name!r} ({call.creation_id:x}) was unlinked at {unlink.returned_ns / 1e6:.3f} ms"
                    f" and opened again at {call.returned_ns / 1e6:.3f} ms"
                )


def _unlinked_twice(
    opens: list[DirectoryCall], unlinks: list[DirectoryCall], is_lost: Callable[[int], bool]
) -> Iterator[str]:
    """An UNLINK by a client that has the name open finds it, unless another UNLINK came in between."""
    for unlink in unlinks:
        if unlink.outcome != Outcome.REFUSED or unlink.code != codes.NOT_EXIST or not unlink.creation_id:
            continue
        opened = [c for c in opens if c.creation_id == unlink.creation_id]
        since_ns = min((call.invoked_ns for call in opened), default=unlink.invoked_ns)
        others = [
            c
            for c in unlinks
            if c is not unlink
            and c.may_be_done
            and c.invoked_ns < unlink.returned_ns
            and (c.outcome != Outcome.OK or c.returned_ns > since_ns)
        ]
        if not others and not is_lost(unlink.creation_id):
            yield (
                f"{unlink.name!r} was open, but could not be unlinked at {unlink.returned_ns / 1e6:.3f} ms"
            )


def _expired_early(
    open_close: OpenCloseHistory,
    opens: list[DirectoryCall],
    unlinks: list[DirectoryCall],
    is_lost: Callable[[int], bool],
    skew: float,
    tolerance_ns: int,
) -> Iterator[str]:
    """No checkpoint is created while the older one of that name is open, or within its retention."""
    first: dict[int, DirectoryCall] = {}
    for call in sorted(opens, key=lambda call: call.returned_ns):
        first.setdefault(call.creation_id, call)
    history = [*open_close.handles.values(), *open_close.closed]
    for newer in first.values():
        for h in history:
            older = h.creation_id
            if not older or h.name != newer.name or older >= newer.creation_id or is_lost(older):
                continue
            if any(
                c.may_be_done
                and c.invoked_ns < newer.returned_ns
                and (c.outcome != Outcome.OK or c.returned_ns > h.opened_ns)
                for c in unlinks
            ):
                continue
            kept_until_ns = h.released_ns + int(h.retention_ns * (1 - skew)) - tolerance_ns
            if h.released_ns < 0 or newer.returned_ns < kept_until_ns:
                yield (
                    f"{newer.name!r} was created again ({newer.creation_id:x}) at "
                    f"{newer.returned_ns / 1e6:.3f} ms, within the retention of {older:x}"
                )
