"""Sends spoiled frames to a node in every state, and checks what they cost and break.

No message must raise an exception, whatever its sender: a fault in it ends its sender's connection, or the
message is refused. It must not cost more memory than its size and the named limits allow. Afterwards the node
still serves a harmless client, and the cluster settles. (Not if the messages came from an authentic peer,
since a node believes its well-formed frames.)
"""

import contextlib
import random
import signal
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.core.client import Client
from tests.fuzz.corpus import KINDS, Corpus
from tests.fuzz.places import CLIENT, NEW_CLIENT, PEER, PLACES, STRANGER, Place, bystander

from ckpt_protocol.bounds_by_kind import FROM_CLIENT, FROM_PEER, Sender, State, body_limits
from ckpt_protocol.codes import OK
from ckpt_protocol.errors import FrameError
from ckpt_protocol.framing import Frame, FrameDecoder, encode_frame
from ckpt_protocol.messages import Kind
from ckptd.core.events import (
    ClientReceived,
    Event,
    HeartbeatReceived,
    PeerReceived,
    SendClient,
    SendHeartbeat,
    SendPeer,
)
from ckptd.sim.faults.spoiling import spoil
from ckptd.sim.world.client_links import ClientLink

_LIMITS: Final = {
    CLIENT: FROM_CLIENT,
    NEW_CLIENT: FROM_CLIENT,
    PEER: FROM_PEER,
    STRANGER: body_limits(Sender.UNAUTHENTICATED, State.NONE),
}
_SENDS: Final = (SendClient, SendPeer, SendHeartbeat)
MESSAGES_PER_PLACE: Final = 30
AS_RECORDED: Final = 0.15
"""This share of the frames is sent unspoiled: late, twice, or in a state in which they are not expected."""

PEAK_BYTES_MAX: Final = 32 * 1024 * 1024
PEAK_PER_BYTE_MAX: Final = 80
"""Memory that one message may take while it is handled: a fixed part, and a part for each byte of it."""

WORK_MAX: Final = 50_000
"""Counted work of one event: that of the longest legal update, which cannot be split (about 50 ms)."""

GUESSED: Final = 2**40
"""Clients without a session begin one above this; the sessions of the others are small numbers here."""

HANDLING_SECONDS_MAX: Final = 30
"""A message that takes longer counts as one that never ends, even on a slow machine."""

SENT_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a node may send because of one message of a client. (Pages and chunks have limits of their own.)"""

BACKUPS: Final = 2
"""An update is also sent to this many other replicas."""


@dataclass
class Finding:
    """One message that broke something, with all that is needed to send it again."""

    what: str
    place: str
    sender: str
    frames: list[Frame]
    seed: int

    def __str__(self) -> str:
        frame = self.frames[-1]
        numbers = f"a={frame.a} b={frame.b} c={frame.c}"
        body = f"body of {len(frame.body)} bytes {frame.body[:80].hex()}"
        return (
            f"seed {self.seed}: {self.place}, {self.sender}, kind {frame.kind}, message {len(self.frames)}, "
            f"{numbers}, {body}: {self.what}"
        )


@dataclass
class Report:
    """What a run did: messages by (place, sender, kind), the worst cost, and what it found."""

    messages: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    closed: int = 0
    contained: int = 0
    """Messages that raised before anything was changed: each shows that a check is missing."""
    peak_bytes: tuple[int, str] = (0, "")
    sent_bytes: tuple[int, str] = (0, "")
    work: tuple[int, str] = (0, "")
    findings: list[Finding] = field(default_factory=list)


class NeverEnds(Exception):
    """A message was not handled within `HANDLING_SECONDS_MAX`."""


@contextlib.contextmanager
def _ends() -> Iterator[None]:
    def give_up(number: int, frame: object) -> None:
        raise NeverEnds(f"not handled within {HANDLING_SECONDS_MAX} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(HANDLING_SECONDS_MAX)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Sink(Client):
    """The attacking client's end: it takes every answer, expected or not."""

    def on_received(self, link: ClientLink, data: bytes) -> None:
        FrameDecoder().feed(data)


class Fuzzer:
    """`run_seed` sends the messages of one seed; the same seed sends the same ones."""

    def __init__(self, corpus: Corpus, meter: bool = True) -> None:
        self.corpus = corpus
        self.meter = meter
        self.report = Report()

    def run_seed(self, seed: int) -> None:
        """Send some messages to one place."""
        draw = random.Random(seed)
        name = draw.choice(list(PLACES))
        place = PLACES[name]()
        sender = draw.choice(place.senders)
        sent: list[Frame] = []
        place.cluster.may_have_two_actives = sender in (PEER, STRANGER)
        link = self.link(place, sender)
        for _ in range(draw.randrange(1, MESSAGES_PER_PLACE)):
            frame = self._draw_frame(draw, place, sender)
            sent.append(frame)
            try:
                if not self.send(place, name, sender, link, frame):
                    sender = NEW_CLIENT if sender == CLIENT else sender
                    link = self.link(place, sender)
                if draw.random() < 0.3:
                    place.cluster.run(draw.choice((0.2, 2, 30)))
            except Exception as error:
                self._found(f"raised {type(error).__name__}: {str(error)[:300]}", name, sender, sent, seed)
                return
        if sender in (CLIENT, NEW_CLIENT):
            self._look_after(place, name, sender, sent, seed)

    def _found(self, what: str, place: str, sender: str, sent: list[Frame], seed: int) -> None:
        self.report.findings.append(Finding(what, place, sender, sent, seed))

    def link(self, place: Place, sender: str) -> int:
        """Return the link on which the sender's frames come; 0 if it has none."""
        if sender == CLIENT:
            link = place.opened[0].client.link
            if link in place.cluster.client_links.links:
                place.cluster.client_links.links[link].client = Sink(place.cluster, 0)
            return link
        if sender == NEW_CLIENT:
            return place.cluster.connect_client(Sink(place.cluster, 0), place.target)
        return 0

    def _draw_frame(self, draw: random.Random, place: Place, sender: str) -> Frame:
        corpus = self.corpus[CLIENT if sender == NEW_CLIENT else sender]
        frame = draw.choice(corpus[draw.choice(list(corpus))])
        frame = self.aim(draw, place, sender, frame)
        return frame if draw.random() < AS_RECORDED else spoil(draw, frame, KINDS)

    def aim(self, draw: random.Random, place: Place, sender: str, frame: Frame) -> Frame:
        """Return the frame with handles, epoch and creation ids of this place, so the node handles it."""
        if sender in (CLIENT, NEW_CLIENT):
            number = draw.randrange(100, 10**6)
            handle = draw.choice(place.opened).handle if draw.random() < 0.9 else frame.b
            if frame.kind == Kind.ATTACH:
                handle = GUESSED + number  # (No client can guess another's session: there are 2**63.)
            frame = frame._replace(a=number, b=handle, c=draw.choice((1, number)))
        elif sender == PEER:
            node = place.cluster.hosts[place.target].core
            epoch = node.context.epoch if node is not None else 0
            creations = list(getattr(node, "replicas", {0: 0}))
            frame = frame._replace(b=epoch)
            if frame.a > 2**30 and creations:
                frame = frame._replace(a=draw.choice(creations))
        return frame

    def send(self, place: Place, name: str, sender: str, link: int, frame: Frame) -> bool:
        """Deliver it as the daemon would. Return False if that ended the sender's connection."""
        try:
            frames = FrameDecoder(_LIMITS[sender]).feed(encode_frame(*frame))
        except FrameError:
            self.report.closed += 1
            return False
        event: Event
        if sender == STRANGER:
            event = HeartbeatReceived(frames[0])
        elif sender == PEER:
            event = PeerReceived(place.peers[0], frames)
        else:
            event = ClientReceived(link, frames)
        self.report.messages[name, sender, frame.kind] += 1
        lines = len(place.cluster.lines)
        node = place.cluster.hosts[place.target].core
        if node is None:
            return False
        self._measured(place, name, sender, event, frame)
        closed = any(f"{place.target}: closes" in line for line in place.cluster.lines[lines:])
        self.report.closed += closed
        return not closed

    def _measured(self, place: Place, name: str, sender: str, event: Event, frame: Frame) -> None:
        node = place.cluster.hosts[place.target].core
        assert node is not None
        where = f"{name}, {sender}, kind {frame.kind}, body of {len(frame.body)} bytes"
        if self.meter:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
        work_before = node.context.work
        with _ends():
            effects = node.handle(event, place.cluster.now_ns)
        work = max(0, node.context.work - work_before)
        self.report.work = max(self.report.work, (work, where))
        assert work <= WORK_MAX, f"was {work} units of work"
        if self.meter:
            peak = tracemalloc.get_traced_memory()[1] - before
            self.report.peak_bytes = max(self.report.peak_bytes, (peak, where))
            assert peak <= PEAK_BYTES_MAX + PEAK_PER_BYTE_MAX * len(frame.body), f"took {peak} bytes"
        out = sum(len(effect.data) for effect in effects if isinstance(effect, _SENDS))
        self.report.sent_bytes = max(self.report.sent_bytes, (out, where))
        contained = node.context.counters.get("contained", 0)
        if contained:
            del node.context.counters["contained"]
            self.report.contained += contained
        most = SENT_BYTES_MAX + BACKUPS * len(frame.body)
        assert sender == PEER or out <= most, f"sent {out} bytes"
        place.cluster.carry_out(place.target, effects)

    def _look_after(self, place: Place, name: str, sender: str, sent: list[Frame], seed: int) -> None:
        cluster = place.cluster
        try:
            if place.serves:
                _, table = bystander(place)
                assert table.try_write(b"k", b"w").code == OK
                assert table.read(b"k") == b"w"
            cluster.holds.clear()
            cluster.heal()
            cluster.run(2000)
            if place.target not in cluster.left and not any(
                host.core is None for host in cluster.hosts.values()
            ):
                cluster.may_have_two_actives = False
                cluster.check()
        except AssertionError as error:
            self._found(f"afterwards: {str(error)[-600:]}", name, sender, sent, seed)
        except Exception as error:
            self._found(f"afterwards raised {type(error).__name__}: {error}", name, sender, sent, seed)
