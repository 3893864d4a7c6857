"""Turns: a bounded amount of counted work in one event, and the rest in later ones.

An event may bring far more work than the node can do before its next heartbeat is due: 108 KB of READs on one
connection once blocked all other clients for 16 s. So work is counted as it is done (`context.work`, in the
units of `work_costs`). Once the budget of a turn is spent, what comes waits in the *lane* of its link. It is
served in the turns that follow, round robin over the lanes and a little of each at a time. Between two turns
the runtime looks at its other sockets, so heartbeats never wait for clients.

* Each lane is a FIFO. What one link sent is served in order; that the link was lost comes after that.
* While nothing waits, a frame is served at once.
* A client that does not read its answers, or that already waits for many of them, is not served until that
  changes. Its PINGs are answered even while it waits for many answers: a client that gets no answer to a PING
  looks for another node.
* A link whose lane is full is not read until there is space. So a lane is bounded, and TCP slows its sender.
* A peer's lane is always served: two nodes that each waited for the other to read would wait for ever.

No clock is read here: the same events make the same turns, in the simulator and in a replay.
"""

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind
from ckptd.core.client_request import READ_ONLY_KINDS, Request
from ckptd.core.context import Context
from ckptd.core.events import ClientLost, PeerConnected, PeerLost, PeerRefused, ReadOn, StopReading
from ckptd.core.hub import Hub
from ckptd.core.work_costs import FRAME_WORK

Key = int | str
"""A client's link, or a peer's node id."""

_Rest = ClientLost | PeerConnected | PeerLost | PeerRefused
"""Events that wait behind the frames of their link."""

_READ_KINDS: Final = (*READ_ONLY_KINDS, Kind.DESCRIBE, Kind.PING)

FORWARDED_READS_LANE: Final = ""
"""The lane of the reads that peers forwarded and that continue in turns.

So the lanes of the peers' links do not wait for them.
"""

LANES_FULL_MAX: Final = 32
"""The lanes are crowded when all together hold as much as this many full ones.

Each may then hold only 1 / `OVERLOADED_SHARE` of its limit.
"""

OVERLOADED_SHARE: Final = 64

TRACKERS_MAX: Final = 16_384
"""TRACKs that wait at a node, for a change or for another node's answer; more are TRY_AGAIN.

TRACKs wait for a long time, so the node looks at all of them again and again: 100,000 kept a node from its
heartbeats. One client has only its share of them (`share_of_limits`).
"""

TRACKER: Final = -1
"""The weight of a TRACK that waits: TRACKs are counted separately."""

TOO_MANY_TRACKERS: Final = f"{TRACKERS_MAX} trackers already wait at this node"

_ITEM_BYTES: Final = 256
"""About how much one frame takes in addition to its body."""


class Lane:
    """What waits of one link."""

    __slots__ = ("congested", "full", "items", "lost", "scheduled", "stopped", "waiting_bytes")

    def __init__(self) -> None:
        self.items: deque[Frame | Request | _Rest] = deque()
        self.waiting_bytes = 0
        self.congested = False
        """The client does not read its answers."""
        self.full = False
        """The client already waits for many answers."""
        self.scheduled = False
        """The lane is in `Turns.round`."""
        self.lost = False
        """The client is gone."""
        self.stopped = False
        """The link is not read."""


class Turns:
    """The lanes of all links, and the order in which they are served."""

    def __init__(self, context: Context, hub: Hub) -> None:
        self.context = context
        self.hub = hub
        settings = context.settings
        self.work_max = settings.work_per_turn
        self.quantum = settings.work_per_link
        self.unanswered_max = settings.unanswered_per_link
        self.lane_bytes_max = settings.lane_bytes_max
        self.lanes: dict[Key, Lane] = {}
        """The lanes of the links of which something waits, or that must wait themselves."""
        self.round: deque[Key] = deque()
        """The lanes that are to be served, in order."""
        self.unanswered: dict[int, int] = {}
        """By client's link, the sum of `Request.weight` over its unanswered requests."""
        self.trackers: dict[int, int] = {}
        """By client's link, how many of its TRACKs wait."""
        self.tracker_count = 0
        self.trackers_max = max(1, TRACKERS_MAX // settings.share_of_limits)
        self.waiting_bytes = 0

    # -- frames and events that arrive

    def on_client_frames(self, link: int, frames: list[Frame]) -> None:
        """Serve frames of a client now, or keep them for a later turn."""
        context = self.context
        if self.round or link in self.lanes or context.work >= self.work_max:
            self._enqueue(link, frames)
            return
        context.work_until = context.work + self.quantum
        waiting = iter(frames)
        if self.hub.receive_client(link, waiting) and context.work >= context.work_until:
            rest = list(waiting)
            if rest:
                self._enqueue(link, rest)

    def on_peer_frames(self, node_id: str, frames: list[Frame]) -> None:
        """Serve frames of a peer now, or keep them for a later turn."""
        context = self.context
        # (Twice the budget: a write is delayed if its acknowledgement waits for a turn of clients.)
        if node_id in self.lanes or context.work >= 2 * self.work_max:
            self._enqueue(node_id, frames)
            return
        context.work_until = context.work + self.quantum
        waiting = iter(frames)
        if self.hub.receive_peer(node_id, waiting) and context.work >= context.work_until:
            rest = list(waiting)
            if rest:
                self._enqueue(node_id, rest)

    def defer_event(self, key: Key, event: _Rest) -> bool:
        """Keep an event that must wait for what its link brought before it; return False if it need not."""
        lane = self.lanes.get(key)
        if lane is None:
            return False
        if not lane.items:
            self.drop_lane(key)
            return False
        if type(event) is ClientLost:
            # No client reads the answers any more, so only requests that change something are carried out.
            lane.items = deque(i for i in lane.items if type(i) is Request or i[0] not in _READ_KINDS)  # type: ignore[index]
            lane.congested = lane.full = False
            lane.lost = True  # Never full again: otherwise its session's end would wait for every answer.
        elif type(event) is PeerConnected:
            lane.stopped = False  # This is a new connection, and it is read.
        lane.items.append(event)
        self._schedule(key, lane)
        return True

    def _enqueue(self, key: Key, frames: list[Frame]) -> None:
        lane = self.lanes.get(key)
        if type(key) is int and not (lane is not None and lane.congested):
            frames = self._answer_pings(key, frames)
            lane = self.lanes.get(key)  # A PING may have withdrawn all that the lane waited for.
        if lane is None:
            lane = self.lanes[key] = Lane()
        lane.items.extend(frames)
        self._add_bytes(lane, sum(_ITEM_BYTES + len(frame.body) for frame in frames))
        if lane.waiting_bytes > self._lane_bytes() and not lane.stopped:
            lane.stopped = True
            self.context.count("links_not_read")
            self.context.effects.append(StopReading(key))
        self._schedule(key, lane)

    def _add_bytes(self, lane: Lane, more_bytes: int) -> None:
        lane.waiting_bytes += more_bytes
        self.waiting_bytes += more_bytes

    def _lane_bytes(self) -> int:
        """Return how much one lane may hold: little if all lanes together hold much."""
        overloaded = self.waiting_bytes > LANES_FULL_MAX * self.lane_bytes_max
        return self.lane_bytes_max // OVERLOADED_SHARE if overloaded else self.lane_bytes_max

    def _answer_pings(self, link: int, frames: list[Frame]) -> list[Frame]:
        pings = [frame for frame in frames if frame.kind == Kind.PING]
        if not pings:
            return frames
        self.context.work_until = self.context.work + self.quantum
        waiting = iter(pings)
        self.hub.receive_client(link, waiting)
        return [*waiting, *(frame for frame in frames if frame.kind != Kind.PING)]

    def requeue(self, requests: Iterable[Request]) -> None:
        """Keep requests that may continue now, ahead of everything that their links brought since."""
        self.context.work_until = (
            0  # The link that is served now may be one of theirs: its other frames stay after them.
        )
        by_origin: dict[Key, list[Request]] = {}
        for request in requests:
            forwarded = type(request.origin) is str and request.kind in _READ_KINDS
            by_origin.setdefault(FORWARDED_READS_LANE if forwarded else request.origin, []).append(request)
        for key, theirs in by_origin.items():
            lane = self.lanes.get(key)
            if lane is None:
                lane = self.lanes[key] = Lane()
            lane.items.extendleft(reversed(theirs))
            self._add_bytes(lane, sum(_ITEM_BYTES + len(request.body) for request in theirs))
            self._schedule(key, lane)

    def withdraw(self, link: int, number: int, scanned_max: int) -> Frame | Request | None:
        """Take a client's request out of its lane, unless it is in doubt.

        A PING overtakes what waits in a lane, so it may name a request that is still there.
        """
        lane = self.lanes.get(link)
        if lane is None:
            return None
        for item in islice(lane.items, scanned_max):
            if not isinstance(item, Frame | Request):
                continue
            if isinstance(item, Frame):
                found = item.a == number and item.kind != Kind.PING
            else:
                found = item.number == number and not item.in_doubt
            if found:
                lane.items.remove(item)
                self._add_bytes(lane, -_ITEM_BYTES - len(item.body))
                return item
        return None

    # -- who has to wait

    def on_congested(self, link: int) -> None:
        """Let a client's requests wait until it reads its answers."""
        lane = self.lanes.get(link)
        if lane is None:
            lane = self.lanes[link] = Lane()
        lane.congested = True
        self.context.count("links_congested")

    def on_drained(self, link: int) -> None:
        """Serve a client again: it has read its answers."""
        lane = self.lanes.get(link)
        if lane is not None:
            lane.congested = False
            self._schedule(link, lane)

    def add_unanswered(self, request: Request, weight: int) -> None:
        """Count a client's request that waits from now on, here or for other nodes."""
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
        """Count a TRACK that waits from now on; return why it may not wait, or ""."""
        link = request.origin
        if type(link) is not int or request.weight:
            return ""
        if self.tracker_count >= TRACKERS_MAX:
            return TOO_MANY_TRACKERS
        trackers = self.trackers.get(link, 0)
        if trackers >= self.trackers_max:
            return (
                f"this client already has {trackers} of the {TRACKERS_MAX} trackers at this node "
                "(share_of_limits)"
            )
        self.trackers[link] = trackers + 1
        self.tracker_count += 1
        request.weight = TRACKER
        return ""

    def remove_unanswered(self, request: Request) -> None:
        """Count a request no more, if it was counted: it is answered or dropped.

        TRACKs of links that were gone once counted for ever.
        """
        if not request.weight:
            return
        link = request.origin
        assert type(link) is int
        if request.weight == TRACKER:
            request.weight = 0
            trackers = self.trackers.pop(link, 0)
            if trackers:  # (Otherwise the link is gone, and its trackers with it.)
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
                self._schedule(link, lane)

    def recount_unanswered(self, waiting: Iterable[Request]) -> None:
        """Correct the counts of unanswered requests. `waiting` are all requests that do wait.

        Otherwise a duplicate that is dropped without an answer would count for ever, and its client would not
        be served.
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
                self._schedule(key, lane)

    def drop_frames(self, key: Key) -> None:
        """Drop what a link brought: it is cut off.

        Events about the link that follow (it was lost, for example) stay.
        """
        lane = self.lanes.get(key)
        if lane is not None:
            while lane.items and type(lane.items[0]) in (Frame, Request):
                lane.items.popleft()
            self._schedule(key, lane)

    def drop_lane(self, key: Key) -> None:
        """Drop the lane of a link that is gone, with everything in it."""
        lane = self.lanes.pop(key, None)
        if lane is not None:
            self.waiting_bytes -= lane.waiting_bytes
        if type(key) is int:
            self.unanswered.pop(key, None)
            self.tracker_count -= self.trackers.pop(key, 0)

    # -- turns

    def _schedule(self, key: Key, lane: Lane) -> None:
        """Add a lane to the round if it can be served, or delete it if it has nothing to wait for."""
        if lane.congested or lane.full:
            return
        if not lane.items:
            if lane.stopped:
                self.context.effects.append(ReadOn(key))
            if not lane.scheduled:
                del self.lanes[key]
                self.waiting_bytes -= lane.waiting_bytes
        elif not lane.scheduled:
            lane.scheduled = True
            self.round.append(key)

    def run_turn(self) -> None:
        """Run one turn: serve the lanes in order, a little of each at a time, within the budget."""
        context, lanes, order = self.context, self.lanes, self.round
        context.work = 0
        while order and context.work < self.work_max:
            key = order.popleft()
            lane = lanes.get(key)
            if lane is None or not lane.scheduled:
                continue
            lane.scheduled = False
            if lane.congested:
                continue  # It became so after the lane was listed; `on_drained` lists it again.
            context.work_until = min(context.work + self.quantum, self.work_max)
            self._serve(key, lane)
            if lanes.get(key) is lane:
                if lane.stopped and 2 * lane.waiting_bytes <= self._lane_bytes():
                    lane.stopped = False
                    context.effects.append(ReadOn(key))
                self._schedule(key, lane)

    def _serve(self, key: Key, lane: Lane) -> None:
        context, items = self.context, lane.items
        while items and not lane.full and context.work < context.work_until:
            item = items.popleft()
            if type(item) is Frame:
                self._add_bytes(lane, -_ITEM_BYTES - len(item.body))
                if type(key) is int:
                    link_open = self.hub.receive_client(key, (item,))
                else:
                    link_open = self.hub.receive_peer(str(key), (item,))
                if not link_open:
                    self.drop_frames(key)
            elif type(item) is Request:
                self._add_bytes(lane, -_ITEM_BYTES - len(item.body))
                context.work += FRAME_WORK
                self.hub.resume(item)
            else:
                self.hub.on_link(item)  # type: ignore[arg-type]
            if self.lanes.get(key) is not lane:
                return
