"""Withdrawals: requests that cannot be served in time are answered TRY_AGAIN, if nothing was done for them.

Shortly before a caller's time is over, its client names the request in a PING. If the request only waits,
here or at the node that it was forwarded to, it is taken back and will not be done any more. The answer says
what it waited for. A request that may have been done is left alone, and its client reports TIMEOUT. So
TRY_AGAIN means "not done", and says why.
"""

from collections.abc import Iterable
from itertools import islice
from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind, answer_error, encode_answer
from ckpt_protocol.parse_requests import parse_open
from ckptd.core.client_request import READ_ONLY_KINDS, Request
from ckptd.core.context import Context
from ckptd.core.directory.replicator import DirectoryReplicator
from ckptd.core.directory.validation import why_open_waits
from ckptd.core.hub import Hub
from ckptd.core.replication.active_replica import ActiveReplica
from ckptd.core.replication.local_replicas import LocalReplicas
from ckptd.core.requests.turn_budget import Turns
from ckptd.core.requests.waiting_requests import WaitingRequests

SCANNED_MAX: Final = 1_000
"""Entries of each queue that are searched for a withdrawn request. One further back is not found."""


class Withdrawals:
    """Takes back requests that wait."""

    def __init__(
        self,
        context: Context,
        hub: Hub,
        replicator: DirectoryReplicator,
        replicas: LocalReplicas,
        turns: Turns,
        waiting: WaitingRequests,
    ) -> None:
        self.context = context
        self.hub = hub
        self.replicator = replicator
        self.replicas = replicas
        self.turns = turns
        self.waiting = waiting

    def withdraw(self, link: int, session: int, numbers: Iterable[int]) -> None:
        """Withdraw the requests that a client names because their time is nearly over."""
        for number in numbers:
            in_lane = self.turns.withdraw(link, number, SCANNED_MAX)
            if in_lane is not None:
                error = answer_error(codes.TRY_AGAIN, "this node is busy and has not started this request")
                if isinstance(in_lane, Request):
                    self.hub.refuse_waiting(in_lane, error)
                else:
                    self.context.send_client(link, encode_answer(number, self.context.epoch, 0, error))
                continue
            forwarded = self.waiting.forwarded.get((session, number))
            if forwarded is not None and forwarded.kind not in READ_ONLY_KINDS:
                # If it was forwarded before, for example in an earlier view, no node can tell if it was done.
                if not forwarded.outcome_uncertain:
                    forwarded.withdrawn = True
                    frame = encode_frame(Kind.WITHDRAW, number, self.context.epoch, session)
                    self.context.send_peer(forwarded.forwarded_to, frame)
                continue
            self._withdraw(session, number)

    def on_withdraw(self, frame: Frame) -> None:
        """Take back a forwarded request that its client's node asks for.

        The answer goes back to that node.
        """
        self._withdraw(frame.c, frame.a)

    def _withdraw(self, session: int, number: int) -> None:
        request, why = self._find(session, number)
        if request is not None:
            self.hub.refuse_waiting(request, answer_error(codes.TRY_AGAIN, why))

    def _find(self, session: int, number: int) -> tuple[Request | None, str]:
        """Take a request that waits and was not done out of its queue. Return it, and what it waited for."""
        key, waiting = (session, number), self.waiting
        parked = waiting.parked.get(key)
        if parked is not None:
            if parked.in_doubt:
                return None, ""
            del waiting.parked[key]
            return parked, self.why_parked(parked)
        forwarded = waiting.forwarded.pop(key, None)
        if forwarded is not None:
            return forwarded, f"node {forwarded.forwarded_to} does not answer"
        for query_id, asked in islice(waiting.commit_queries.items(), SCANNED_MAX):
            if (asked.session, asked.number) == key:
                del waiting.commit_queries[query_id]
                return asked, "the active replica does not answer which updates are committed"
        queued = self.replicator.withdraw(session, number, SCANNED_MAX)
        if queued is not None:
            return queued, self._why_queued()
        for active in islice(self.replicas.busy.by_id.values(), SCANNED_MAX):
            uncommitted = active.withdraw(session, number)
            if uncommitted is not None:
                return uncommitted, _why_uncommitted(active)
        return None, ""

    def on_time(self) -> None:
        """Answer TRY_AGAIN to requests that have waited for `hold_ns`, if nothing was done for them."""
        waiting, settings = self.waiting, self.context.settings
        late_ns = self.context.now_ns - settings.hold_ns
        late = [
            (key, request)
            for key, request in waiting.parked.items()
            if request.received_ns <= late_ns and not request.in_doubt and isinstance(request.origin, int)
        ]
        for key, request in late[:SCANNED_MAX]:  # The others at the next heartbeat: each takes about 4 us.
            del waiting.parked[key]
            self.hub.refuse_waiting(request, answer_error(codes.TRY_AGAIN, self.why_parked(request)))
        for request in self.replicator.pop_late(late_ns, SCANNED_MAX):
            self.hub.refuse_waiting(request, answer_error(codes.TRY_AGAIN, self._why_queued()))

    def why_not_serving(self) -> str:
        """Return what keeps this node from serving, in words."""
        waits = self.hub.describe_wait()
        return (
            f"this node does not serve now; it waits for {waits}" if waits else "this node does not serve now"
        )

    def why_open_waits_here(self, request: Request) -> str:
        """Return why an OPEN that was put off still has to wait, as its client's node sees it; "" if not."""
        entry = self.replicator.directory.find(parse_open(request.body).name)
        me = self.context.node_id
        if entry is None or not (entry.last_in_sync or me in entry.replicas):
            return ""  # The coordinator decides, or adds a replica.
        if entry.creation_id in self.replicas.deferred_resyncs:
            return "this node does not have enough memory for a replica"
        return why_open_waits(entry, me)

    def _why_queued(self) -> str:
        replicator = self.replicator
        if not self.context.serving():
            return self.why_not_serving()
        if replicator.awaiting_ack:
            return f"{_listed(replicator.awaiting_ack)} must acknowledge an earlier change of the directory"
        return "this node first finishes earlier changes of the directory"

    def why_parked(self, request: Request) -> str:
        """Return what a parked request waits for, in words."""
        if not self.context.serving():
            return self.why_not_serving()
        if self.hub.draining:
            return "this node is leaving"
        if request.open_deferred:
            return self.why_open_waits_here(request) or "the checkpoint is being opened"
        entry = self.replicator.directory.checkpoints.get(request.creation_id)
        if entry is not None and entry.creation_id in self.context.stops.closed:
            return f"the checkpoint is not served: {self.context.stops.closed[entry.creation_id]}"
        if entry is not None and entry.last_in_sync:
            return f"the checkpoint waits for its replicas on {_listed(entry.last_in_sync)}"
        replica = self.replicas.by_id.get(request.creation_id)
        if replica is not None and replica.active is not None and replica.active.awaiting_report:
            unreported = _listed(replica.active.awaiting_report)
            return f"the active replica of this checkpoint waits for the replicas on {unreported} to report"
        return "the active replica of this checkpoint is not ready yet"


def _why_uncommitted(active: ActiveReplica) -> str:
    log = active.replica.log
    late = [node_id for node_id in active.commit_set if active.acked.get(node_id, 0) < log.seq]
    if not late:
        return "an earlier resize of this checkpoint is not finished"
    return f"the replicas on {_listed(late)} have not acknowledged earlier updates"


def _listed(node_ids: Iterable[str]) -> str:
    return ", ".join(node_ids)
