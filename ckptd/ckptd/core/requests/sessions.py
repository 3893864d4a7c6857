"""Clients' links (connections) and sessions at this node: frames in, requests out."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NamedTuple

from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ, SA_CKPT_CHECKPOINT_WRITE
from ckpt_protocol.errors import FrameError, RequestError
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer
from ckpt_protocol.parse_requests import (
    Operate,
    parse_active_set,
    parse_attach,
    parse_describe,
    parse_leader,
    parse_leader_track,
    parse_nothing,
    parse_open,
    parse_operate,
    parse_ping,
    parse_retention_set,
    parse_track,
    parse_unlink,
)
from ckptd.core.client_request import Request
from ckptd.core.containment import close_client, contain_client
from ckptd.core.context import NEVER_NS, Context
from ckptd.core.directory.directory import OPENED_WITH_B01_RULES, DirectoryOp
from ckptd.core.directory.replicator import INTERNAL_OPS_MAX, DirectoryReplicator
from ckptd.core.events import TakeLarge
from ckptd.core.hub import Hub
from ckptd.core.requests.router import RequestRouter
from ckptd.core.settings import FeatureLevel
from ckptd.core.stops_by_bugs import MAKES_NO_REPLICA
from ckptd.core.work_costs import FRAME_WORK, KIB_SHIFT

_HANDLE_KINDS = {
    Kind.UPDATE: SA_CKPT_CHECKPOINT_WRITE,
    Kind.READ: SA_CKPT_CHECKPOINT_READ,
    Kind.ITERATE: SA_CKPT_CHECKPOINT_READ | OPENED_WITH_B01_RULES,
    Kind.STATUS: 0,
    Kind.TRACK: SA_CKPT_CHECKPOINT_READ,
    Kind.LEADER: 0,
    Kind.LEADER_TRACK: 0,
    Kind.SYNCHRONIZE: SA_CKPT_CHECKPOINT_WRITE,
}
"""Requests about one checkpoint through a handle, and the open flag that each needs."""

_CHECKED_HERE = (Kind.TRACK, Kind.STATUS, Kind.SYNCHRONIZE, Kind.LEADER, Kind.LEADER_TRACK)
_DIRECTORY_KINDS = (Kind.DETACH, Kind.OPEN, Kind.CLOSE, Kind.UNLINK, Kind.RETENTION_SET, Kind.ACTIVE_SET)

ONE_SESSION: Final = "a connection can have one session, and this one has a different one"


class Ping(NamedTuple):
    """A PING, with the numbers of the requests that it withdraws."""

    withdrawn: tuple[int, ...]


class Sessions:
    """The clients of this node: their links and their sessions."""

    def __init__(
        self, context: Context, hub: Hub, replicator: DirectoryReplicator, requests: RequestRouter
    ) -> None:
        self.context = context
        self.hub = hub
        self.replicator = replicator
        self.requests = requests
        self.links = requests.links
        """Link to session, 0 before ATTACH. Shared with `RequestRouter`."""
        self.death_seen: dict[int, None] = {}
        """The links whose client's death the system reports at once."""
        self.link_of_session: dict[int, int] = {}
        """Session to link."""
        self.attaching: dict[int, tuple[int, set[int]]] = {}
        """By link, the session that it asks to attach, and the numbers of its requests for that."""
        self.creators: dict[int, int] = {}
        """Creation id to link, for the checkpoints that clients of this node created."""
        self.created: Counter[int] = Counter()
        """By link, how many checkpoints in `creators` are its own."""
        self.grace_until_ns: dict[int, int] = {}
        """The sessions without a link, and the time in ns until which each is kept."""
        self.dead: dict[int, None] = {}
        """Those of them whose client's process is known to be dead."""
        self.ending: dict[int, None] = {}
        """The sessions in `grace_until_ns` whose end has been asked for."""

    def on_connected(self, link: int, death_seen: bool) -> None:
        self.links[link] = 0
        if death_seen:
            self.death_seen[link] = None

    def on_lost(self, link: int, process_dead: bool) -> None:
        """Start the grace time of a lost link's session.

        The grace is 0 if the client's process is known to be dead.
        """
        self.attaching.pop(link, None)
        self.created.pop(link, None)
        self.death_seen.pop(link, None)
        session = self.links.pop(link, 0)
        if not session or self.link_of_session.get(session) != link:
            return
        del self.link_of_session[session]
        grace_ns = 0 if process_dead else self.context.settings.session_grace_ns
        self.grace_until_ns[session] = self.context.now_ns + grace_ns
        if process_dead:
            self.dead[session] = None
        self.context.wake_at(self.grace_until_ns[session])

    def receive(self, link: int, frames: Iterable[Frame]) -> bool:
        """Take a client's frames in order, as many as its turn allows. Return False if its link ends."""
        context = self.context
        for frame in frames:
            context.cause = frame
            context.work += FRAME_WORK + (len(frame.body) >> KIB_SHIFT)
            try:
                checked = self._check(link, frame)
            except RequestError as refusal:
                self._refuse(link, frame.a, refusal.code, refusal.text)
            except FrameError as error:
                context.effects.append(close_client(link, frame, error))
                return False
            except Exception as error:
                contain_client(context, link, frame, error)
                return False
            else:  # Parsing and checking are over: an exception from here on is our own fault.
                if isinstance(checked, Request):
                    self.requests.route(checked)
                elif isinstance(checked, Ping):
                    self._answer_ping(link, frame.a, checked)
                elif checked is not None:
                    self.hub.operate(link, frame.a, checked)
            if context.work >= context.work_until:
                break
        return link not in context.closing

    def _check(self, link: int, frame: Frame) -> Request | Operate | Ping | None:
        """Return what is to be done; None if no more than an answer was needed.

        Raises: RequestError; FrameError.
        """
        session = self.links.get(link)
        if session is None:
            return None
        kind, number, handle, first_unanswered, body = frame
        needed = _HANDLE_KINDS.get(kind)
        if needed is None:
            return self._check_other(link, session, frame)
        context = self.context
        entry = self.replicator.directory.sessions.get(session)
        if entry is not None and entry.node_id != context.node_id:
            return None  # The session has moved to another node: its client asks again there.
        opened = entry.opens.get(handle) if entry is not None else None
        if opened is None:
            raise RequestError(codes.BAD_HANDLE, self._bad_handle_reason(session))
        if needed and not opened[1] & needed:
            mode = "writing" if needed == SA_CKPT_CHECKPOINT_WRITE else "reading"
            raise RequestError(codes.ACCESS, f"the handle was not opened for {mode}")
        if kind in _CHECKED_HERE:  # The bodies of the others are parsed where they are served.
            self._check_rare(kind, body, opened[0])
        return Request(link, session, number, first_unanswered, kind, opened[0], body, context.now_ns)

    def _check_rare(self, kind: int, body: bytes, creation_id: int) -> None:
        if kind == Kind.TRACK:
            parse_track(body)
            return
        if kind == Kind.LEADER:
            parse_leader(body)
            return
        if kind == Kind.LEADER_TRACK:
            parse_leader_track(body)
            return
        parse_nothing(kind, body)
        if kind == Kind.SYNCHRONIZE and self._is_sync(creation_id):
            raise RequestError(
                codes.BAD_OPERATION, "a checkpoint with WR_ALL_REPLICAS needs no synchronization"
            )

    def _is_sync(self, creation_id: int) -> bool:
        entry = self.replicator.directory.checkpoints.get(creation_id)
        return entry is not None and entry.attributes.sync

    def _bad_handle_reason(self, session: int) -> str:
        if not session:
            return "no session is attached on this connection"
        if session not in self.replicator.directory.sessions:
            return "this session has ended"
        return "this handle is not open"

    def _refuse(self, link: int, number: int, code: int, text: str) -> None:
        self.context.send_client(link, encode_answer(number, self.context.epoch, 0, answer_error(code, text)))

    def _check_other(self, link: int, session: int, frame: Frame) -> Request | Operate | Ping | None:
        kind, number, handle, first_unanswered, body = frame
        now_ns = self.context.now_ns
        if kind == Kind.PING:
            return Ping(tuple(parse_ping(body)))
        if kind == Kind.DESCRIBE:
            answer = answer_ok(self.hub.describe(parse_describe(body)))
            self.context.send_client(link, encode_answer(number, self.context.epoch, 0, answer))
            return None
        if kind == Kind.OPERATE:
            return parse_operate(body)
        if kind == Kind.ATTACH:
            body = pack_body([first_unanswered, parse_attach(body), link in self.death_seen])
            self._check_attach(link, session, handle, number)
            return Request(link, handle, number, 0, kind, 0, body, now_ns)
        if kind not in _DIRECTORY_KINDS:
            raise FrameError(f"a client may not send a frame of kind {kind}")
        if not session:
            raise RequestError(codes.BAD_HANDLE, "no session is attached on this connection")
        directory = self.replicator.directory
        entry = directory.sessions.get(session)
        if entry is not None and entry.node_id != self.context.node_id:
            return None
        if kind == Kind.OPEN:
            self._check_share(link, body)
        elif kind == Kind.ACTIVE_SET and entry is not None and handle in entry.opens:
            self._check_makes_replicas(entry.opens[handle][0])
        return Request(link, session, number, first_unanswered, kind, 0, _routed(kind, handle, body), now_ns)

    def _check_attach(self, link: int, session: int, asked: int, number: int) -> None:
        """Refuse a second session on a link. Raises: RequestError.

        Without this rule one client took all 100,000 sessions in 3.4 s. A link counts as asking for a session
        until each of its requests for it is answered. A link that asked twice, and whose first request was
        refused, once had two sessions, of which one never ended.
        """
        attached = session if self.link_of_session.get(session) == link else 0
        attaching, numbers = self.attaching.get(link, (0, set()))
        for other in (attached, attaching):
            if other not in (0, asked):
                raise RequestError(codes.NO_RESOURCES, ONE_SESSION)
        numbers.add(number)
        self.attaching[link] = asked, numbers

    def _check_share(self, link: int, body: bytes) -> None:
        """Refuse to create a checkpoint for a link that has created its share of them.

        Raises: RequestError, FrameError.
        """
        settings = self.context.settings
        most = max(1, settings.checkpoints_max // settings.share_of_limits)
        if self.created[link] < most:
            return
        asked = parse_open(body)
        if asked.attributes is None or self.replicator.directory.find(asked.name) is not None:
            return  # It creates none.
        text = f"one connection may create at most {most} of the {settings.checkpoints_max} checkpoints"
        raise RequestError(codes.NO_RESOURCES, f"{text} (checkpoints_max, share_of_limits)")

    def _check_makes_replicas(self, creation_id: int) -> None:
        """Refuse to make this node active for a checkpoint of which it makes no replica.

        Raises: RequestError.
        """
        if self.context.stops.bars_replica(creation_id, self.context.node_id):
            raise RequestError(codes.LIBRARY, MAKES_NO_REPLICA)

    def on_created(self, created: Iterable[tuple[int, int]]) -> None:
        """Count the checkpoints that sessions created, by the links of this node."""
        for session, creation_id in created:
            link = self.link_of_session.get(session)
            if link is not None:
                self.creators[creation_id] = link
                self.created[link] += 1

    def on_directory_changed(self, creation_ids: Iterable[int]) -> None:
        """Take the checkpoints that are gone from the counts of their links."""
        for creation_id in creation_ids:
            if creation_id in self.creators and creation_id not in self.replicator.directory.checkpoints:
                link = self.creators.pop(creation_id)
                if link in self.created:
                    self.created[link] -= 1

    def _answer_ping(self, link: int, number: int, ping: Ping) -> None:
        """Answer a PING, and withdraw the requests that it names, if they only wait.

        A client whose update waits here, on the wrong side of a network partition, must learn that others
        serve it. Before this rule it got no answer, found the node alive at each PING, and stayed until its
        time-out was over.
        """
        session = self.links.get(link, 0)
        entry = self.replicator.directory.sessions.get(session)
        if ping.withdrawn and entry is not None and entry.node_id == self.context.node_id:
            self.requests.withdrawals.withdraw(link, session, ping.withdrawn)
        if self.context.serving():
            self.context.send_client(link, encode_answer(number, self.context.epoch, 0, answer_ok()))
        else:
            self._refuse(link, number, codes.TRY_AGAIN, self.requests.withdrawals.why_not_serving())

    def on_attach_answered(self, request: Request, body: bytes) -> bytes:
        """Attach the session to the link that asked, if the directory has attached it to this node.

        Return the body of the answer for the client.
        """
        link, session = request.origin, request.session
        if isinstance(link, int):
            self._end_attaching(link, session, request.number)
        if body != answer_ok():
            return body
        self.dead.pop(session, None)
        if isinstance(link, int) and link in self.links:
            before = self.links[link]
            if before != session and self.link_of_session.get(before) == link:
                # It asked twice with one number, was answered, and then asked for this session.
                self.ensure_link_or_grace([session])
                return answer_error(codes.NO_RESOURCES, ONE_SESSION)
            self.links[link] = session
            self.link_of_session[session] = link
            self.context.effects.append(TakeLarge(link))
            self.grace_until_ns.pop(session, None)
        elif session not in self.link_of_session:
            self._start_grace(session)
        view = self.requests.view
        members = [[node_id, list(self.hub.urls_of(node_id))] for node_id in (view.members if view else ())]
        return answer_ok([self.context.node_id, members])

    def _end_attaching(self, link: int, session: int, number: int) -> None:
        attaching, numbers = self.attaching.get(link, (0, set()))
        if attaching == session:
            numbers.discard(number)
            if not numbers:
                self.attaching.pop(link, None)

    # -- sessions without a link

    def _start_grace(self, session: int) -> None:
        self.grace_until_ns[session] = self.context.now_ns + self.context.settings.session_grace_ns
        self.context.wake_at(self.grace_until_ns[session])

    def on_installed(self) -> None:
        """Check all sessions: a directory came, perhaps with some that this node did not know."""
        self.on_directory_changed(list(self.creators))
        self.ensure_link_or_grace(self.replicator.directory.sessions)

    def ensure_link_or_grace(self, sessions: Iterable[int]) -> None:
        """Make sure that each of these sessions, if attached to this node, has a link or a running grace.

        The answer to ATTACH attaches a session to a link. A client once sent two ATTACHes with the same
        number. The answer to one was taken for the answer to the other, and its session never ended (seed
        7016104).
        """
        for session in sessions:
            entry = self.replicator.directory.sessions.get(session)
            attached_here = entry is not None and entry.node_id == self.context.node_id
            if attached_here and session not in self.link_of_session and session not in self.grace_until_ns:
                self._start_grace(session)

    def on_serving_again(self) -> None:
        """Start every grace again: while this node did not serve, no client could attach here."""
        for session in self.grace_until_ns:
            self._start_grace(session)

    def on_ended(self, sessions: list[int]) -> None:
        """Detach the links of sessions that have ended."""
        for session in sessions:
            self.grace_until_ns.pop(session, None)
            link = self.link_of_session.pop(session, None)
            if link is not None and self.links.get(link) == session:
                self.links[link] = 0

    def on_time(self) -> None:
        """Ask for the end of the sessions whose grace is over."""
        if not self.grace_until_ns or self.context.now_ns < min(self.grace_until_ns.values()):
            return
        self.ending = {session: None for session in self.ending if session in self.grace_until_ns}
        self.dead = {session: None for session in self.dead if session in self.grace_until_ns}
        for session, until_ns in list(self.grace_until_ns.items()):
            entry = self.replicator.directory.sessions.get(session)
            if entry is None or entry.node_id != self.context.node_id:
                del self.grace_until_ns[session]
            elif until_ns <= self.context.now_ns and self.context.serving():
                if session not in self.ending:
                    if len(self.ending) >= INTERNAL_OPS_MAX:
                        continue  # Wait until others have ended: all at once blocked every client's opens.
                    self.ending[session] = None
                end = [DirectoryOp.END, session, entry.generation]
                if session in self.dead and self.context.feature_level >= FeatureLevel.TAKEOVER:
                    end.append(True)  # (An older node would not know the operation with this field.)
                self.hub.propose(end)
                self.grace_until_ns[session] = self.context.now_ns + self.context.settings.lease_ns

    def next_ns(self) -> int:
        return min(self.grace_until_ns.values(), default=NEVER_NS)


def _routed(kind: int, handle: int, body: bytes) -> bytes:
    """Return the body with which a directory request is forwarded to the coordinator.

    It is checked first, since here a wrong body can only come from this one client.
    """
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
