"""Clients' links and sessions at this node: frames in, requests out."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ckpt_protocol import codes
from ckpt_protocol.codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.framing import Frame, FrameError
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer
from ckpt_protocol.requests import (
    Describe,
    Operate,
    parse_active_set,
    parse_attach,
    parse_describe,
    parse_nothing,
    parse_open,
    parse_operate,
    parse_ping,
    parse_retention_set,
    parse_track,
    parse_unlink,
)
from ckptd.core.containment import close_client, contain_client
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.coordinator import OWN_AT_ONCE, DirectoryOrder
from ckptd.core.directory import OPENED_AT_B01, Do
from ckptd.core.refusal import Refusal
from ckptd.core.request import Request
from ckptd.core.requests import Requests
from ckptd.core.work import FRAME_WORK, KIB_SHIFT

_OF_HANDLE = {
    Kind.UPDATE: SA_CKPT_CHECKPOINT_WRITE,
    Kind.READ: SA_CKPT_CHECKPOINT_READ,
    Kind.ITERATE: SA_CKPT_CHECKPOINT_READ | OPENED_AT_B01,
    Kind.STATUS: 0,
    Kind.TRACK: SA_CKPT_CHECKPOINT_READ,
    Kind.SYNCHRONIZE: SA_CKPT_CHECKPOINT_WRITE,
}
"""Requests about one checkpoint's sections, and the open flag that each needs."""

_CHECKED_HERE = (Kind.TRACK, Kind.STATUS, Kind.SYNCHRONIZE)
_OF_DIRECTORY = (Kind.DETACH, Kind.OPEN, Kind.CLOSE, Kind.UNLINK, Kind.RETENTION_SET, Kind.ACTIVE_SET)


class Ping(NamedTuple):
    """A PING, with the numbers of the requests that it names."""

    withdrawn: tuple[int, ...]


class Clients:
    """`links` (shared with `Requests`): link to session, 0 before ATTACH.

    `grace`: the sessions without a link, and until when they are kept. `ending`: those among them whose end
    was asked for.
    """

    def __init__(self, context: Context, order: DirectoryOrder, requests: Requests) -> None:
        self.context = context
        self.order = order
        self.requests = requests
        self.links = requests.links
        self.by_session: dict[int, int] = {}
        self.grace: dict[int, int] = {}
        self.ending: dict[int, None] = {}
        self.describe: Callable[[Describe], Any] = lambda asked: None
        self.operate: Callable[[int, int, Operate], None] = lambda link, number, operate: None
        self.ask: Callable[[list[object]], None] = lambda op: None
        requests.on_attached = self._on_attached

    def on_connected(self, link: int) -> None:
        self.links[link] = 0

    def on_lost(self, link: int, process_dead: bool) -> None:
        """The link is gone: the session has its grace time, unless its process is known to be dead."""
        session = self.links.pop(link, 0)
        if not session or self.by_session.get(session) != link:
            return
        del self.by_session[session]
        grace_ns = 0 if process_dead else self.context.settings.session_grace_ns
        self.grace[session] = self.context.now_ns + grace_ns
        self.context.wake_at(self.grace[session])

    def receive(self, link: int, frames: Iterable[Frame]) -> bool:
        """Take a client's frames, in order, as many as its turn allows; False: its link ends instead."""
        context = self.context
        for frame in frames:
            context.cause = frame
            context.work += FRAME_WORK + (len(frame.body) >> KIB_SHIFT)
            try:
                checked = self._check(link, frame)
            except Refusal as refusal:
                self._refuse(link, frame.a, refusal.code, refusal.text)
            except FrameError as error:
                context.effects.append(close_client(link, frame, error))
                return False
            except Exception as error:
                contain_client(context, link, frame, error)
                return False
            else:  # Parsing and checking are over: what raises from here on is our own fault.
                if isinstance(checked, Request):
                    self.requests.dispatch(checked)
                elif isinstance(checked, Ping):
                    self._answer_ping(link, frame.a, checked)
                elif checked is not None:
                    self.operate(link, frame.a, checked)
            if context.work >= context.work_until:
                break
        return link not in context.closing

    def _check(self, link: int, frame: Frame) -> Request | Operate | Ping | None:
        """What is to be done; None for what needs an answer at most. Raises: Refusal; FrameError."""
        session = self.links.get(link)
        if session is None:
            return None
        kind, number, handle, lowest, body = frame
        needed = _OF_HANDLE.get(kind)
        if needed is None:
            return self._check_other(link, session, frame)
        context = self.context
        entry = self.order.directory.sessions.get(session)
        if entry is not None and entry.node_id != context.node_id:
            return None  # The session has left this link: it asks again where it is now.
        opened = entry.opens.get(handle) if entry is not None else None
        if opened is None:
            raise Refusal(codes.BAD_HANDLE, self._why_bad(session))
        if needed and not opened[1] & needed:
            mode = "writing" if needed == SA_CKPT_CHECKPOINT_WRITE else "reading"
            raise Refusal(codes.ACCESS, f"the handle was not opened for {mode}")
        if kind in _CHECKED_HERE:  # Where the request is served its body is parsed anyway.
            self._check_rare(kind, body, opened[0])
        return Request(link, session, number, lowest, kind, opened[0], body, context.now_ns)

    def _check_rare(self, kind: int, body: bytes, creation_id: int) -> None:
        if kind == Kind.TRACK:
            parse_track(body)
            return
        parse_nothing(kind, body)
        if kind == Kind.SYNCHRONIZE and self._is_sync(creation_id):
            raise Refusal(codes.BAD_OPERATION, "a checkpoint with WR_ALL_REPLICAS needs no synchronising")

    def _is_sync(self, creation_id: int) -> bool:
        entry = self.order.directory.checkpoints.get(creation_id)
        return entry is not None and entry.attributes.sync

    def _why_bad(self, session: int) -> str:
        if not session:
            return "no session is attached on this connection"
        if session not in self.order.directory.sessions:
            return "this session has ended"
        return "this handle is not open"

    def _refuse(self, link: int, number: int, code: int, text: str) -> None:
        self.context.send_client(link, encode_answer(number, self.context.epoch, 0, answer_error(code, text)))

    def _check_other(self, link: int, session: int, frame: Frame) -> Request | Operate | Ping | None:
        kind, number, handle, lowest, body = frame
        now_ns = self.context.now_ns
        if kind == Kind.PING:
            return Ping(tuple(parse_ping(body)))
        if kind == Kind.DESCRIBE:
            answer = answer_ok(self.describe(parse_describe(body)))
            self.context.send_client(link, encode_answer(number, self.context.epoch, 0, answer))
            return None
        if kind == Kind.OPERATE:
            return parse_operate(body)
        if kind == Kind.ATTACH:
            body = pack_body([lowest, parse_attach(body)])
            return Request(link, handle, number, 0, kind, 0, body, now_ns)
        if kind not in _OF_DIRECTORY:
            raise FrameError(f"a frame of kind {kind} from a client")
        if not session:
            raise Refusal(codes.BAD_HANDLE, "no session is attached on this connection")
        entry = self.order.directory.sessions.get(session)
        if entry is not None and entry.node_id != self.context.node_id:
            return None
        return Request(link, session, number, lowest, kind, 0, _routed(kind, handle, body), now_ns)

    def _answer_ping(self, link: int, number: int, ping: Ping) -> None:
        """Give a sign of life, and give up what the PING names if it only waits.

        A client whose update waits here, on the wrong side of a cut, must learn that others serve it: it got
        no answer, found the node alive at each PING, and stayed until its time-out was over.
        """
        session = self.links.get(link, 0)
        entry = self.order.directory.sessions.get(session)
        if ping.withdrawn and entry is not None and entry.node_id == self.context.node_id:
            self.requests.withdrawals.withdraw(link, session, ping.withdrawn)
        if self.context.serving():
            self.context.send_client(link, encode_answer(number, self.context.epoch, 0, answer_ok()))
        else:
            self._refuse(link, number, codes.TRY_AGAIN, self.requests.withdrawals.why_not_serving())

    def _on_attached(self, request: Request) -> bytes:
        """The directory ties the session to this node: tie it to the link that asked."""
        link, session = request.origin, request.session
        if isinstance(link, int) and link in self.links:
            before = self.links[link]
            if before != session and self.by_session.get(before) == link:
                # A link has one session: the one before it must not live on for want of a loss.
                del self.by_session[before]
                self._start_grace(before)
            self.links[link] = session
            self.by_session[session] = link
            self.grace.pop(session, None)
        elif session not in self.by_session:
            self._start_grace(session)
        view = self.requests.view
        members = [[node_id, list(self.urls(node_id))] for node_id in (view.members if view else ())]
        return answer_ok([self.context.node_id, members])

    urls: Callable[[str], tuple[str, ...]] = staticmethod(lambda node_id: ())

    # -- sessions without a link

    def _start_grace(self, session: int) -> None:
        self.grace[session] = self.context.now_ns + self.context.settings.session_grace_ns
        self.context.wake_at(self.grace[session])

    def on_installed(self) -> None:
        """Sessions that are attached here have a link, or their grace runs."""
        for session, entry in self.order.directory.sessions.items():
            attached_here = entry.node_id == self.context.node_id
            if attached_here and session not in self.by_session and session not in self.grace:
                self._start_grace(session)

    def on_serving_again(self) -> None:
        """While this node did not serve nobody could attach here: the grace begins anew."""
        for session in self.grace:
            self._start_grace(session)

    def on_ended(self, sessions: list[int]) -> None:
        """Sessions that ended have no link any more."""
        for session in sessions:
            self.grace.pop(session, None)
            link = self.by_session.pop(session, None)
            if link is not None and self.links.get(link) == session:
                self.links[link] = 0

    def on_time(self) -> None:
        """Ask for the end of the sessions whose grace is over."""
        if not self.grace or self.context.now_ns < min(self.grace.values()):
            return
        self.ending = {session: None for session in self.ending if session in self.grace}
        for session, until_ns in list(self.grace.items()):
            entry = self.order.directory.sessions.get(session)
            if entry is None or entry.node_id != self.context.node_id:
                del self.grace[session]
            elif until_ns <= self.context.now_ns and self.context.serving():
                if session not in self.ending:
                    if len(self.ending) >= OWN_AT_ONCE:
                        continue  # Once others have ended. All at once kept everybody's opens waiting.
                    self.ending[session] = None
                self.ask([Do.END, session, entry.generation])
                self.grace[session] = self.context.now_ns + self.context.settings.lease_ns

    def next_ns(self) -> int:
        return min(self.grace.values(), default=NEVER_NS)


def _routed(kind: int, handle: int, body: bytes) -> bytes:
    """A directory request as it travels to the coordinator, checked here first: it comes from this client
    alone."""
    match kind:
        case Kind.OPEN:
            parse_open(body)
        case Kind.UNLINK:
            parse_unlink(body)
        case Kind.RETENTION_SET:
            return pack_body([handle, parse_retention_set(body)])
        case Kind.ACTIVE_SET:
            return pack_body([handle, parse_active_set(body)])
        case Kind.CLOSE:
            parse_nothing(kind, body)
            return pack_body([handle])
        case _:
            parse_nothing(kind, body)
    return body
