"""Whose turn it is: a bounded amount of counted work in one event, and the rest in later ones.

An event may bring far more work than the node can do before its next heartbeat is due: 108 KB of READs in one
connection once kept everybody else out for 16 s. So work is counted as it is done (`context.work`, in the
units of `work_units`). What comes when the budget of a turn is spent waits in the *lane* of its link, and is
served in the turns that follow, round robin over the lanes and a little of each at a time. Between two turns
the runtime looks at its other sockets, so that heartbeats never wait for clients.

* Each lane is a FIFO: what one link sent is served in order, and that it was lost waits behind that.
* While nothing waits, a frame is served at once.
* A client that does not read its answers, or that waits for many of them already, is not served until that
  changes. Only PING is: a client that gets no answer to it looks for another node.
* A link whose lane is full is not read until there is room. So a lane is bounded, and TCP slows its sender.
* A peer's lane always goes on: two nodes that each waited for the other to read would wait for ever.

No clock is read here: the same events make the same turns, in the simulator and in a replay.
"""

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind
from ckptd.core.client_request import Request
from ckptd.core.context import Context
from ckptd.core.events import ClientLost, Event, PeerConnected, PeerLost, PeerRefused, ReadOn, StopReading
from ckptd.core.work_units import FRAME_WORK

Key = int | str
"""A client's link, or a peer's node id."""

_Rest = ClientLost | PeerConnected | PeerLost | PeerRefused
"""Events that wait behind the frames of their link."""

_READS: Final = (Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.TRACK, Kind.DESCRIBE, Kind.PING)

READS_OF_PEERS: Final = ""
"""The lane of reads that peers passed on and that go on in turns: their links' lanes do not wait for them."""

LANES_FULL_MAX: Final = 32
"""When all lanes together hold what so many may hold, each may hold `CROWDED_PART` of it."""

CROWDED_PART: Final = 64

TRACKS_MAX: Final = 16_384
"""TRACKs that wait at a node, for a change or for another node's answer; more are TRY_AGAIN.

They wait for long, so all of them are looked at again and again: 100,000 kept a node from its heartbeats. One
client has its share of them (`share_of_limits`)."""

TRACKER: Final = -1
"""The weight of a TRACK that waits: it is counted by itself."""

TOO_MANY_TRACKS: Final = f"{TRACKS_MAX} trackers wait at this node already"

_ITEM_BYTES: Final = 256
"""About what one frame takes beside its body."""


class Lane:
    """What waits of one link. `congested`: its answers are not read; `full`: it waits for many answers.

    `listed`: it is in the round. `stopped`: its link is not read. `lost`: its client is gone.
    """

    __slots__ = ("congested", "full", "held_bytes", "items", "listed", "lost", "stopped")

    def __init__(self) -> None:
        self.items: deque[Frame | Request | _Rest] = deque()
        self.held_bytes = 0
        self.congested = False
        self.full = False
        self.listed = False
        self.lost = False
        self.stopped = False


class Turns:
    """`lanes` of links of which something waits, or that must wait; `round`: those to be served, in order.

    `unanswered`: what each client's link waits for elsewhere, in units of `Request.weight`; `trackers`: how
    many of its TRACKs wait.
    """

    def __init__(
        self,
        context: Context,
        serve_client: Callable[[int, Iterable[Frame]], bool],
        serve_peer: Callable[[str, Iterable[Frame]], bool],
        dispatch: Callable[[Request], None],
        lose: Callable[[Event], None],
    ) -> None:
        self.context = context
        self.serve_client = serve_client
        self.serve_peer = serve_peer
        self.dispatch = dispatch
        self.lose = lose
        settings = context.settings
        self.work_max = settings.work_per_turn
        self.quantum = settings.work_per_link
        self.unanswered_max = settings.unanswered_per_link
        self.lane_bytes_max = settings.lane_bytes_max
        self.lanes: dict[Key, Lane] = {}
        self.round: deque[Key] = deque()
        self.unanswered: dict[int, int] = {}
        self.trackers: dict[int, int] = {}
        self.tracker_count = 0
        self.tracks_max = max(1, TRACKS_MAX // settings.share_of_limits)
        self.held_bytes = 0

    # -- what comes

    def take_client(self, link: int, frames: list[Frame]) -> None:
        """Frames of a client: serve them now, or keep them for a later turn."""
        context = self.context
        if self.round or link in self.lanes or context.work >= self.work_max:
            self._keep(link, frames)
            return
        context.work_until = context.work + self.quantum
        waiting = iter(frames)
        if self.serve_client(link, waiting) and context.work >= context.work_until:
            rest = list(waiting)
            if rest:
                self._keep(link, rest)

    def take_peer(self, node_id: str, frames: list[Frame]) -> None:
        """Frames of a peer: serve them now, or keep them for a later turn."""
        context = self.context
        # (Twice the budget: an acknowledgement that waits for a turn of clients holds a write up.)
        if node_id in self.lanes or context.work >= 2 * self.work_max:
            self._keep(node_id, frames)
            return
        context.work_until = context.work + self.quantum
        waiting = iter(frames)
        if self.serve_peer(node_id, waiting) and context.work >= context.work_until:
            rest = list(waiting)
            if rest:
                self._keep(node_id, rest)

    def waits(self, key: Key, event: _Rest) -> bool:
        """Whether an event has to wait behind what its link brought; it is kept then."""
        lane = self.lanes.get(key)
        if lane is None:
            return False
        if not lane.items:
            self.forget(key)
            return False
        if type(event) is ClientLost:
            # Nobody reads what it asked for, and nothing more comes: only what changes something is done.
            lane.items = deque(i for i in lane.items if type(i) is Request or i[0] not in _READS)  # type: ignore[index]
            lane.congested = lane.full = False
            lane.lost = True  # It is never full again: its session's end would wait for every answer.
        elif type(event) is PeerConnected:
            lane.stopped = False  # It is another connection, and is read.
        lane.items.append(event)
        self._list(key, lane)
        return True

    def _keep(self, key: Key, frames: list[Frame]) -> None:
        lane = self.lanes.get(key)
        if type(key) is int and not (lane is not None and lane.congested):
            frames = self._answer_pings(key, frames)
            lane = self.lanes.get(key)  # A PING may have taken back all that the lane waited for.
        if lane is None:
            lane = self.lanes[key] = Lane()
        lane.items.extend(frames)
        self._hold(lane, sum(_ITEM_BYTES + len(frame.body) for frame in frames))
        if lane.held_bytes > self._lane_bytes() and not lane.stopped:
            lane.stopped = True
            self.context.count("links_not_read")
            self.context.effects.append(StopReading(key))
        self._list(key, lane)

    def _hold(self, lane: Lane, more_bytes: int) -> None:
        lane.held_bytes += more_bytes
        self.held_bytes += more_bytes

    def _lane_bytes(self) -> int:
        """What one lane may hold: little where many lanes together hold much."""
        crowded = self.held_bytes > LANES_FULL_MAX * self.lane_bytes_max
        return self.lane_bytes_max // CROWDED_PART if crowded else self.lane_bytes_max

    def _answer_pings(self, link: int, frames: list[Frame]) -> list[Frame]:
        pings = [frame for frame in frames if frame.kind == Kind.PING]
        if not pings:
            return frames
        self.context.work_until = self.context.work + self.quantum
        waiting = iter(pings)
        self.serve_client(link, waiting)
        return [*waiting, *(frame for frame in frames if frame.kind != Kind.PING)]

    def put_back(self, requests: Iterable[Request]) -> None:
        """Requests that may go on now, before whatever their links brought since."""
        self.context.work_until = (
            0  # The link that is served may be one of theirs: the rest stays behind them.
        )
        by_origin: dict[Key, list[Request]] = {}
        for request in requests:
            passed_on = type(request.origin) is str and request.kind in _READS
            by_origin.setdefault(READS_OF_PEERS if passed_on else request.origin, []).append(request)
        for key, theirs in by_origin.items():
            lane = self.lanes.get(key)
            if lane is None:
                lane = self.lanes[key] = Lane()
            lane.items.extendleft(reversed(theirs))
            self._hold(lane, sum(_ITEM_BYTES + len(request.body) for request in theirs))
            self._list(key, lane)

    def take_back(self, link: int, number: int, looked_at_max: int) -> Frame | Request | None:
        """Take a client's request out of its lane, where it is not in doubt.

        PING overtakes what waits in a lane, so it may name what stands there.
        """
        lane = self.lanes.get(link)
        if lane is None:
            return None
        for item in islice(lane.items, looked_at_max):
            if not isinstance(item, Frame | Request):
                continue
            if isinstance(item, Frame):
                found = item.a == number and item.kind != Kind.PING
            else:
                found = item.number == number and not item.in_doubt
            if found:
                lane.items.remove(item)
                self._hold(lane, -_ITEM_BYTES - len(item.body))
                return item
        return None

    # -- who has to wait

    def congest(self, link: int) -> None:
        """A client does not read its answers: what it asks waits until it does."""
        lane = self.lanes.get(link)
        if lane is None:
            lane = self.lanes[link] = Lane()
        lane.congested = True
        self.context.count("links_congested")

    def drain(self, link: int) -> None:
        """It has read them."""
        lane = self.lanes.get(link)
        if lane is not None:
            lane.congested = False
            self._list(link, lane)

    def add_unanswered(self, request: Request, weight: int) -> None:
        """A request of a client's waits from now on, here or for other nodes."""
        link = request.origin
        if type(link) is not int or request.weight:
            return
        request.weight = weight
        unanswered = self.unanswered[link] = self.unanswered.get(link, 0) + weight
        if unanswered >= self.unanswered_max:
            lane = self.lanes.get(link)
            if lane is None:
                lane = self.lanes[link] = Lane()
            if lane.lost:
                return
            lane.full = True
            self.context.work_until = 0  # Its turn is over.

    def add_tracker(self, request: Request) -> str:
        """A TRACK waits from now on; returns why it may not, or ""."""
        link = request.origin
        if type(link) is not int or request.weight:
            return ""
        if self.tracker_count >= TRACKS_MAX:
            return TOO_MANY_TRACKS
        trackers = self.trackers.get(link, 0)
        if trackers >= self.tracks_max:
            return f"{trackers} of the {TRACKS_MAX} trackers at this node are this client's (share_of_limits)"
        self.trackers[link] = trackers + 1
        self.tracker_count += 1
        request.weight = TRACKER
        return ""

    def take_answered(self, request: Request) -> None:
        """A request is answered, or is dropped: where it was counted, it is not any more.

        TRACKs of links that were gone once counted for ever.
        """
        if not request.weight:
            return
        link = request.origin
        assert type(link) is int
        if request.weight == TRACKER:
            request.weight = 0
            trackers = self.trackers.pop(link, 0)
            if trackers:  # (Else the link is gone, and they with it.)
                self.tracker_count -= 1
            if trackers > 1:
                self.trackers[link] = trackers - 1
            return
        unanswered = self.unanswered.get(link, 0) - request.weight
        request.weight = 0
        if unanswered > 0:
            self.unanswered[link] = unanswered
        else:
            self.unanswered.pop(link, None)
        if self.lanes and unanswered <= self.unanswered_max // 2:
            lane = self.lanes.get(link)
            if lane is not None and lane.full:
                lane.full = False
                self._list(link, lane)

    def count_again(self, waiting: Iterable[Request]) -> None:
        """Put right what was not taken back: `waiting` are all requests that wait for other nodes.

        A copy that is dropped without an answer would count for ever, and its client would not be served.
        """
        if not any(lane.full for lane in self.lanes.values()):
            return
        self.unanswered = {}
        for request in waiting:
            link = request.origin
            if type(link) is int and request.weight > 0:
                self.unanswered[link] = self.unanswered.get(link, 0) + request.weight
        for key, lane in list(self.lanes.items()):
            if lane.full and type(key) is int and self.unanswered.get(key, 0) < self.unanswered_max:
                lane.full = False
                self._list(key, lane)

    def drop_frames(self, key: Key) -> None:
        """A link is cut off: what it brought is not looked at. (What happened to it since still counts.)"""
        lane = self.lanes.get(key)
        if lane is not None:
            while lane.items and type(lane.items[0]) in (Frame, Request):
                lane.items.popleft()
            self._list(key, lane)

    def forget(self, key: Key) -> None:
        """A link is gone, with all that it brought."""
        lane = self.lanes.pop(key, None)
        if lane is not None:
            self.held_bytes -= lane.held_bytes
        if type(key) is int:
            self.unanswered.pop(key, None)
            self.tracker_count -= self.trackers.pop(key, 0)

    # -- turns

    def _list(self, key: Key, lane: Lane) -> None:
        """Give a lane its place in the round, or let it go where it has nothing to wait for."""
        if lane.congested or lane.full:
            return
        if not lane.items:
            if lane.stopped:
                self.context.effects.append(ReadOn(key))
            if not lane.listed:
                del self.lanes[key]
                self.held_bytes -= lane.held_bytes
        elif not lane.listed:
            lane.listed = True
            self.round.append(key)

    def go_on(self) -> None:
        """One turn: serve the lanes in their order, a little of each at a time, within the budget."""
        context, lanes, order = self.context, self.lanes, self.round
        context.work = 0
        while order and context.work < self.work_max:
            key = order.popleft()
            lane = lanes.get(key)
            if lane is None or not lane.listed:
                continue
            lane.listed = False
            if lane.congested:
                continue  # It was told since the lane was listed; `drain` lists it again.
            context.work_until = min(context.work + self.quantum, self.work_max)
            self._serve(key, lane)
            if lanes.get(key) is lane:
                if lane.stopped and 2 * lane.held_bytes <= self._lane_bytes():
                    lane.stopped = False
                    context.effects.append(ReadOn(key))
                self._list(key, lane)

    def _serve(self, key: Key, lane: Lane) -> None:
        context, items = self.context, lane.items
        while items and not lane.full and context.work < context.work_until:
            item = items.popleft()
            if type(item) is Frame:
                self._hold(lane, -_ITEM_BYTES - len(item.body))
                if type(key) is int:
                    going = self.serve_client(key, (item,))
                else:
                    going = self.serve_peer(str(key), (item,))
                if not going:
                    self.drop_frames(key)
            elif type(item) is Request:
                self._hold(lane, -_ITEM_BYTES - len(item.body))
                context.work += FRAME_WORK
                self.dispatch(item)
            else:
                self.lose(item)  # type: ignore[arg-type]
            if self.lanes.get(key) is not lane:
                return
