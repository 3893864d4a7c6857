"""A client's request on its way to whoever answers it."""

from typing import Final

from ckpt_protocol.messages import Kind
from ckpt_protocol.requests import Elements

Origin = int | str
"""Who waits for the answer: a client's link at this node, or the node that forwarded."""


CHANGE_NOTHING: Final = (Kind.READ, Kind.ITERATE, Kind.STATUS, Kind.TRACK, Kind.SYNCHRONIZE)
"""Requests of which nothing is done, whatever became of them."""


class Request:
    """Who asked (`origin`: a client's link here, or the node that forwarded), and what.

    `creation_id` is 0 for the directory's requests. `maybe_done`: a copy of it, beside the one that is
    under way, may have been done. `since_ns`: when it came to this node. `put_off`: an OPEN of which the
    coordinator said that it has to wait. `withdrawn`: its client's time is over, and the node `to` was asked
    to give it back.
    `elements`: what a READ asks, once its body was parsed here.
    `sent_seq`: the directory's seq at the node of its client when it was passed on.
    `weight`: what it counts for among the unanswered ones of its link, 0 while it does not; `turns.TRACKER`
    while it is counted among the trackers.
    """

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
        self.body = body
        self.since_ns = since_ns
        self.elements: Elements | None = None
        self.maybe_done = False
        self.put_off = self.withdrawn = False
        self.to = ""
        self.weight = self.sent_seq = 0

    @property
    def in_doubt(self) -> bool:
        """Whether it may have been done, so that TRY_AGAIN would be a lie."""
        return self.maybe_done and self.kind not in CHANGE_NOTHING
