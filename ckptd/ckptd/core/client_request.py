"""A client's request on its way to the node that answers it."""

from typing import Final

from ckpt_protocol.messages import Kind
from ckpt_protocol.parse_requests import Elements

Origin = int | str
"""Where the answer goes: a client's link at this node, or the node that forwarded the request."""


READ_ONLY_KINDS: Final = (
    Kind.READ,
    Kind.ITERATE,
    Kind.STATUS,
    Kind.TRACK,
    Kind.SYNCHRONIZE,
    Kind.LEADER,
    Kind.LEADER_TRACK,
)
"""Requests that change nothing, whether they were carried out or not."""

WAITING_KINDS: Final = (Kind.TRACK, Kind.LEADER_TRACK)
"""Requests that wait until something changes."""


class Request:
    """A client's request: where it came from, and what it asks for."""

    __slots__ = (
        "body",
        "creation_id",
        "elements",
        "first_unanswered",
        "forwarded_to",
        "kind",
        "number",
        "open_deferred",
        "origin",
        "outcome_uncertain",
        "received_ns",
        "sent_seq",
        "session",
        "weight",
        "withdrawn",
    )

    def __init__(
        self,
        origin: Origin,
        session: int,
        number: int,
        first_unanswered: int,
        kind: int,
        creation_id: int,
        body: bytes,
        received_ns: int,
    ) -> None:
        self.origin = origin
        self.session = session
        self.number = number
        self.first_unanswered = first_unanswered
        self.kind = kind
        self.creation_id = creation_id
        """0 for requests to the directory."""
        self.body = body
        self.received_ns = received_ns
        """When it arrived at this node."""
        self.elements: Elements | None = None
        """What a READ asks for, once its body was parsed here."""
        self.outcome_uncertain = False
        """A duplicate of it, other than the one in progress, may already have been carried out."""
        self.open_deferred = self.withdrawn = False
        """`open_deferred`: the coordinator answered that this OPEN has to wait.

        `withdrawn`: the client's time is over, and the node `forwarded_to` was asked to give the request
        back.
        """
        self.forwarded_to = ""
        self.weight = self.sent_seq = 0
        """`weight`: what it counts for among the unanswered requests of its link, 0 while it is not counted.

        It is `turns.TRACKER` while the request is counted among the trackers.

        `sent_seq`: the directory's seq, at the node of its client, when the request was forwarded.
        """

    @property
    def in_doubt(self) -> bool:
        """Return True if it may have been carried out, so that TRY_AGAIN would be wrong."""
        return self.outcome_uncertain and self.kind not in READ_ONLY_KINDS
