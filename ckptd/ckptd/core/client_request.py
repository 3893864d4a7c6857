"""A client's request on its way to the node that answers it."""

from typing import Final

from ckpt_protocol.messages import Kind
from ckpt_protocol.requests import Elements

Origin = int | str
"""Where the answer goes: a client's link at this node, or the node that forwarded the request."""


CHANGE_NOTHING: Final = (Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.TRACK, Kind.SYNCHRONIZE)
"""Requests that change nothing, whatever became of them."""


class Request:
    """A client's request: where it came from, and what it asks for."""

    __slots__ = (
        "body",
        "creation_id",
        "elements",
        "kind",
        "lowest",
        "maybe_done",
        "number",
        "origin",
        "put_off",
        "sent_seq",
        "session",
        "since_ns",
        "to",
        "weight",
        "withdrawn",
    )

    def __init__(
        self,
        origin: Origin,
        session: int,
        number: int,
        lowest: int,
        kind: int,
        creation_id: int,
        body: bytes,
        since_ns: int,
    ) -> None:
        self.origin = origin
        self.session = session
        self.number = number
        self.lowest = lowest
        self.kind = kind
        self.creation_id = creation_id
        """0 for requests to the directory."""
        self.body = body
        self.since_ns = since_ns
        """When it arrived at this node."""
        self.elements: Elements | None = None
        """What a READ asks for, once its body was parsed here."""
        self.maybe_done = False
        """A duplicate of it, next to the one in progress, may already have been carried out."""
        self.put_off = self.withdrawn = False
        """`put_off`: the coordinator answered that this OPEN has to wait.

        `withdrawn`: the client's time is over, and the node `to` was asked to give the request back.
        """
        self.to = ""
        self.weight = self.sent_seq = 0
        """`weight`: what it counts for among the unanswered requests of its link, 0 while it is not counted.

        It is `turns.TRACKER` while the request is counted among the trackers.

        `sent_seq`: the directory's seq, at the node of its client, when the request was forwarded.
        """

    @property
    def in_doubt(self) -> bool:
        """Return True if it may have been carried out, so that TRY_AGAIN would be wrong."""
        return self.maybe_done and self.kind not in CHANGE_NOTHING
