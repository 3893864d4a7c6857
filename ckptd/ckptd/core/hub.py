"""What a part of the core may ask of the node that it belongs to, and the core of its runtime.

A part gets its node as a `Hub` when it is made, and calls what it needs. `Node` implements every method: who
reacts to what, and in which order, is written there and nowhere else. A witness has fewer parts, and
implements the first half.

The runtime gives the core a `Transport` when it makes it. What that returns is passed on to those who ask the
node; the core decides nothing by it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ckpt_protocol.framing import Frame
from ckpt_protocol.parse_requests import Describe, Operate
from ckptd.core.client_request import Request
from ckptd.core.events import Event
from ckptd.core.view import View

Positions = list[tuple[int, int]]
"""Creation ids of asynchronous checkpoints, each with the seq up to which its active replica has ordered."""


class VoterHub(Protocol):
    """What a data node and a witness do alike. `Node` and `Witness` implement it."""

    def known_views(self) -> tuple[View | None, ...]:
        """Return the newest decided view and the one on disk: they name incarnations, too."""

    def on_decided(self, view: View) -> None:
        """The arbiter has decided a view, on this node's proposal."""

    def on_superseded(self) -> None:
        """This incarnation ends, since the peers know a later one: keep what may be here alone."""

    def unreplicated_positions(self, node_id: str) -> Positions:
        """Return how far active replicas here have ordered updates that a node may lack."""

    def on_positions_advertised(self, positions: Positions) -> None:
        """Take what a peer says of its active replicas, by its heartbeat."""


class Hub(VoterHub, Protocol):
    """What the parts of a node that holds data ask of it. `Node` implements it."""

    # -- requests

    def route(self, request: Request) -> None:
        """Send a client's request where it belongs, or park it."""

    def resume(self, request: Request) -> None:
        """Continue with a request that has waited in its link's lane."""

    def answer(self, request: Request, body: bytes) -> None:
        """Give a request its one answer."""

    def refuse_waiting(self, request: Request, body: bytes) -> None:
        """Answer a request that was taken back while it waited."""

    def retry_parked(self, unanswered: Iterable[Request] = ()) -> None:
        """Try again what is parked: something changed. `unanswered` may have been done in part."""

    def retry(self, requests: list[Request]) -> None:
        """Try requests again that have waited."""

    def on_attach_answered(self, request: Request, body: bytes) -> bytes:
        """Attach a session to its link, if the answer says so; return the answer for the client."""

    # -- links

    def receive_client(self, link: int, frames: Iterable[Frame]) -> bool:
        """Take a client's frames in order; return False if its link ends."""

    def receive_peer(self, node_id: str, frames: Iterable[Frame]) -> bool:
        """Take a peer's frames in order; return False if its link is closed instead."""

    def on_link(self, event: Event) -> None:
        """Handle an event of a link, after all that the link brought before it is done."""

    def urls_of(self, node_id: str) -> tuple[str, ...]:
        """Return the addresses at which clients reach a node."""

    # -- the view and the directory

    def propose(self, operation: list[Any]) -> None:
        """Propose a directory operation to the coordinator, which orders it if it agrees."""

    def on_installed(self, view: View) -> None:
        """A view is installed: the epoch begins."""

    def on_directory_applied(self) -> None:
        """An operation of the directory has been applied."""

    # -- the operator

    def describe(self, asked: Describe) -> Any:
        """Return what DESCRIBE asks for."""

    def describe_wait(self) -> str:
        """Return what this node waits for before it serves; "" when it serves."""

    def operate(self, link: int, number: int, command: Operate) -> None:
        """Carry out an operator's command, and answer it."""

    @property
    def draining(self) -> bool:
        """Return True while this node leaves and parks every request."""

    def leave(self) -> None:
        """Begin a planned leave."""

    def stop_all(self) -> None:
        """Stop the whole cluster."""

    def retry_checkpoint(self, name: str) -> str:
        """Serve a closed checkpoint again; return a text for the operator. Raises: RequestError."""

    def on_left(self, text: str) -> None:
        """The leave is over; `text` says what it costs."""


Limits = dict[str, tuple[int, int]]
"""By name, how much there is now and how much there may be. The name is the setting's, without `_max`."""

ReadLimits = Callable[[], Limits]


@dataclass(slots=True, frozen=True)
class Transport:
    """What the core may ask its runtime."""

    urls: tuple[str, ...] = ()
    """The URLs at which clients reach this node."""

    counters: Callable[[], dict[str, int]] = dict
    """Returns the runtime's counters, by name."""

    limits: ReadLimits = dict
    """Returns how full the runtime's limits are."""


NO_TRANSPORT: Final = Transport()
"""The simulator's: it has nothing to say."""
