"""The requests that wait at this node: parked here, forwarded to another node, or for a replica.

Each is here under its session and number, so that a repeated one replaces the earlier one. How many there
are, and how many bytes they take, is limited.
"""

from collections.abc import Iterator

from ckpt_protocol import codes
from ckpt_protocol.messages import answer_error
from ckptd.core.client_request import Request
from ckptd.core.context import Context
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.hub import Hub
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.requests.turn_budget import Turns

Key = tuple[int, int]
"""A request's session and number."""


class WaitingRequests:
    """All requests of this node that are not answered yet, but for those that replicas and directory hold."""

    def __init__(self, context: Context, hub: Hub, turns: Turns) -> None:
        self.context = context
        self.hub = hub
        self.turns = turns
        self.parked: dict[Key, Request] = {}
        """Requests that are parked here."""
        self.forwarded: dict[Key, Request] = {}
        """Requests that were forwarded and wait for another node."""
        self.commit_queries: dict[int, Request] = {}
        """By token, reads that wait until the active replica says what is committed."""
        self.deferred: dict[Key, tuple[Request, bytes]] = {}
        """Requests with their answers, which wait for a replica."""
        self.overloaded = False
        """So much waits that a client's next request is answered TRY_AGAIN; nothing was done for it."""
        self.waiting_bytes = 0
        """How much was waiting when this node last looked."""

    @property
    def count(self) -> int:
        """How many requests wait, but for those that wait for a replica with their answers."""
        return len(self.parked) + len(self.forwarded) + len(self.commit_queries)

    def admit(self, request: Request) -> bool:
        """Return True if one more request may wait; otherwise answer it.

        A request that may have been done, or that another node forwarded, must wait in any case.
        """
        if not self.overloaded and self.count < self.context.settings.requests_waiting_max:
            return True
        if request.in_doubt or type(request.origin) is str:
            return True
        # (Not by `answer`: that would hold an OPEN which is to try again, and there is no space for it.)
        limit = "requests_waiting_bytes_max" if self.overloaded else "requests_waiting_max"
        text = f"too many requests already wait at this node ({limit})"
        self.hub.refuse_waiting(request, answer_error(codes.TRY_AGAIN, text))
        return False

    def park(self, request: Request) -> None:
        """Park a request until something changes."""
        if self.admit(request):
            # 90,000 parked requests of one link took 120 ms to look at, at each heartbeat.
            self.turns.add_unanswered(request, 1)
            key = request.session, request.number
            earlier = self.parked.get(key)
            if earlier is not None and earlier is not request:
                self.turns.remove_unanswered(earlier)
            self.parked[key] = request

    def check_backlog(self) -> None:
        """Count the bytes that wait."""
        self.waiting_bytes = sum(len(request.body) for request in self.parked.values())
        self.waiting_bytes += sum(len(request.body) for request in self.forwarded.values())
        self.overloaded = self.waiting_bytes > self.context.settings.requests_waiting_bytes_max

    def unanswered(self, replicator: DirectoryReplicator, replicas: LocalReplicas) -> Iterator[Request]:
        """Yield every request that waits here, or for other nodes.

        What was forwarded for a session that has left this node is not included: such duplicates have no
        effect and get no answer.
        """
        sessions, me = replicator.directory.sessions, self.context.node_id
        for request in self.forwarded.values():
            entry = sessions.get(request.session)
            if entry is None or entry.node_id == me:
                yield request
        yield from self.parked.values()
        yield from self.commit_queries.values()
        yield from (request for request, _ in self.deferred.values())
        yield from replicator.waiting()
        yield from replicas.busy.unanswered()
