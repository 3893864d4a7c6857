"""A client's request on its way to whoever answers it."""

from ckpt_protocol.requests import Elements

Origin = int | str
"""Who waits for the answer: a client's link at this node, or the node that forwarded."""


class Request:
    """Who asked (`origin`: a client's link here, or the node that forwarded), and what.

    `creation_id` is 0 for the directory's requests. `maybe_done`: an active replica may
    have it already, so that TRY_AGAIN would be a lie. `since_ns`: when it came to this node.
    `put_off`: an OPEN of which the coordinator said that it has to wait.
    `elements`: what a READ asks, once its body was parsed here.
    `weight`: what it counts for among the unanswered ones of its link (`turns`), 0 while it does not.
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
        "session",
        "since_ns",
        "to",
        "weight",
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
        self.put_off = False
        self.to = ""
        self.weight = 0
