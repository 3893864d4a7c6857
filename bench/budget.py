"""`python -m bench.budget`: how long one event of the core takes at most, and one unit of counted work.

Each case gives a core the worst messages that are legal: the longest update of each operation, the longest
read, a selection that nothing matches, thousands of pipelined requests, many trackers. The core is driven
without sockets, so that the times are its own. Every event is timed, including `TurnCame`, in CPU time of
this thread, so that time spent on other programs does not count. The goal is 5 ms, and 50 ms for work that is
atomic and cannot be split. A missed goal is printed, and is not an error.
"""

import argparse
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import thread_time_ns
from typing import Any, Final

from rich.console import Console

from bench.layout import Rows
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.codes import OK
from ckpt_protocol.constants import (
    SA_CKPT_SECTIONS_ANY,
    SA_CKPT_SECTIONS_CORRUPTED,
    SA_CKPT_WR_ALL_REPLICAS,
    SA_TIME_END,
)
from ckpt_protocol.framing import Frame, FrameDecoder
from ckpt_protocol.limits import BUILT_BYTES_MAX, OPS_PER_UPDATE_MAX, SECTION_BYTES_MAX
from ckpt_protocol.messages import Kind, Op
from ckpt_protocol.parse_answers import decode_answer
from ckptd.core.events import (
    ClientConnected,
    ClientReceived,
    Effect,
    Event,
    Persist,
    Persisted,
    SendClient,
    TimeCame,
    TurnCame,
)
from ckptd.core.node import Node
from ckptd.core.settings import MILLISECOND_NS, Settings

TURN_GOAL_MS: Final = 5.0
WHOLE_GOAL_MS: Final = 50.0
"""The goal for an update and a read, which are done as a whole or not at all."""

SECTIONS: Final = 200_000
"""How many sections a large checkpoint has."""

PIPELINED: Final = 5_000
TRACKERS: Final = 1_000
MIB: Final = 1 << 20
WALL_OFFSET_NS: Final = 10**18
FAR_NS: Final = 4 * 10**18


@dataclass(slots=True)
class Times:
    """The time in ns and the units of counted work of each event of one case."""

    ns: list[int] = field(default_factory=list)
    work: list[int] = field(default_factory=list)


class Core:
    """One node that serves alone, and sessions that each have a handle of one checkpoint."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.node = Node(Settings("a", arbiter="single"), 1, b"", 0, WALL_OFFSET_NS)
        self.times = Times()
        self._links = 0
        self._numbers = 1
        self.answers: dict[int, bytes] = {}
        while not self.node.serving(self.now_ns):
            self.now_ns = max(self.now_ns + MILLISECOND_NS, self.node.deadline_ns)
            self.tell(TimeCame())

    def tell(self, event: Event) -> None:
        """Handle one event, and then take turns until no work is left."""
        self._handle(event)
        while self.node.turn_due:
            self._handle(TurnCame())

    def _handle(self, event: Event) -> None:
        before = 0 if type(event) in (TurnCame, TimeCame) else self.node.context.work
        began_ns = thread_time_ns()
        effects = self.node.handle(event, self.now_ns)
        self.times.ns.append(thread_time_ns() - began_ns)
        self.times.work.append(self.node.context.work - before)
        self._carry_out(effects)

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Persist):
                self.tell(Persisted(effect.number))
            elif isinstance(effect, SendClient):
                for frame in FrameDecoder().feed(effect.data):
                    self.answers[frame.a] = frame.body

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def ask(self, link: int, handle: int, kind: int, fields: Any, third: int = 0) -> int:
        """Make one request; return its number."""
        number = self.number()
        frame = Frame(kind, number, handle, third or number, pack_body(fields))
        self.tell(ClientReceived(link, [frame]))
        if kind != Kind.TRACK:
            code, _, _, text = decode_answer(self.answers.pop(number))
            assert code == OK, (kind, code, text)
        return number

    def open(self, sections: int, section_bytes: int) -> tuple[int, int]:
        """Open a session on a link of its own; return the link and its handle of the one checkpoint."""
        self._links += 1
        link = self._links
        self.tell(ClientConnected(link))
        self.ask(link, 1000 + link, Kind.ATTACH, [True], 1)
        attributes = [
            SA_CKPT_WR_ALL_REPLICAS,
            sections * section_bytes,
            SA_TIME_END,
            sections,
            section_bytes,
            32,
        ]
        return link, self.ask(link, 0, Kind.OPEN, [b"t", 7, attributes, False])

    def fill(self, link: int, handle: int, count: int, content: bytes) -> None:
        """Write sections 0 to `count`."""
        for first in range(0, count, OPS_PER_UPDATE_MAX):
            ops = [
                [Op.PUT, b"%09d" % number, content, None]
                for number in range(first, min(count, first + OPS_PER_UPDATE_MAX))
            ]
            self.ask(link, handle, Kind.UPDATE, ops)


def _ids(content: bytes = b"") -> Iterator[bytes]:
    return (b"%09d" % (number * 7919 % SECTIONS) for number in range(OPS_PER_UPDATE_MAX))


def _update(make: Callable[[bytes], list[Any]], filled: bool = True) -> Callable[[Core], None]:
    def case(core: Core) -> None:
        link, handle = core.open(2 * SECTIONS, 100)
        if filled:
            core.fill(link, handle, SECTIONS, b"12345678")
        core.times = Times()
        core.ask(link, handle, Kind.UPDATE, [make(section_id) for section_id in _ids()])

    return case


def _large_write(core: Core) -> None:
    link, handle = core.open(9, SECTION_BYTES_MAX)
    core.ask(link, handle, Kind.UPDATE, [[Op.PUT, b"k", bytes(SECTION_BYTES_MAX), None]])
    core.times = Times()
    core.ask(link, handle, Kind.UPDATE, [[Op.PATCH, b"k", SECTION_BYTES_MAX // 2, b"x", None]])


def _many_writes(core: Core) -> None:
    link, handle = core.open(999, MIB)
    count = BUILT_BYTES_MAX // MIB
    for number in range(count):
        core.ask(link, handle, Kind.UPDATE, [[Op.PUT, b"%d" % number, bytes(MIB), None]])
    core.times = Times()
    core.ask(link, handle, Kind.UPDATE, [[Op.PATCH, b"%d" % n, 9, b"x", None] for n in range(count)])


def _read_many(core: Core) -> None:
    link, handle = core.open(2 * SECTIONS, 100)
    core.fill(link, handle, SECTIONS, b"12345678")
    core.times = Times()
    core.ask(link, handle, Kind.READ, [[section_id, 0, None] for section_id in _ids()])


def _read_large(core: Core) -> None:
    link, handle = core.open(9, SECTION_BYTES_MAX)
    core.ask(link, handle, Kind.UPDATE, [[Op.PUT, b"k", bytes(SECTION_BYTES_MAX), None]])
    core.times = Times()
    core.ask(link, handle, Kind.READ, [[b"k", 0, None]])


def _first_iteration(core: Core) -> None:
    link, handle = core.open(2 * SECTIONS, 100)
    core.fill(link, handle, SECTIONS, b"12345678")
    core.times = Times()
    core.ask(link, handle, Kind.ITERATE, [SA_CKPT_SECTIONS_ANY, 0, None, True, None])


def _empty_selection(core: Core) -> None:
    link, handle = core.open(2 * SECTIONS, 100)
    core.fill(link, handle, SECTIONS, b"12345678")
    core.ask(link, handle, Kind.ITERATE, [SA_CKPT_SECTIONS_ANY, 0, None, False, 1])
    core.times = Times()
    core.ask(link, handle, Kind.ITERATE, [SA_CKPT_SECTIONS_CORRUPTED, 0, None, False, None])


def _pipelined(kind: int, fields: Any, content: bytes, bytes_max: int) -> Callable[[Core], None]:
    def case(core: Core) -> None:
        link, handle = core.open(99, bytes_max)
        core.ask(link, handle, Kind.UPDATE, [[Op.PUT, b"k", content, None]])
        count = min(PIPELINED, (256 * MIB) // (len(content) + 100))
        numbers = [core.number() for _ in range(count)]
        body = pack_body(fields)
        core.times = Times()
        core.tell(ClientReceived(link, [Frame(kind, n, handle, numbers[0], body) for n in numbers]))

    return case


def _trackers(core: Core) -> None:
    link, handle = core.open(2 * OPS_PER_UPDATE_MAX, 100)
    for _ in range(TRACKERS):
        one, its = core.open(2 * OPS_PER_UPDATE_MAX, 100)
        core.ask(one, its, Kind.TRACK, [0, 0])
    core.times = Times()
    core.ask(link, handle, Kind.UPDATE, [[Op.PUT, b"k", b"v", None]])


def _expirations(core: Core) -> None:
    link, handle = core.open(2 * SECTIONS, 100)
    until_ns = core.now_ns + WALL_OFFSET_NS + 60 * 1000 * MILLISECOND_NS
    for first in range(0, 50_000, OPS_PER_UPDATE_MAX):
        ops = [[Op.PUT, b"%09d" % (first + n), b"v", until_ns] for n in range(OPS_PER_UPDATE_MAX)]
        core.ask(link, handle, Kind.UPDATE, ops)
    core.times = Times()
    core.now_ns = until_ns - WALL_OFFSET_NS + MILLISECOND_NS
    for _ in range(200):
        core.tell(TimeCame())


CASES: Final[tuple[tuple[str, float, Callable[[Core], None]], ...]] = (
    ("10,000 PUT of new sections", WHOLE_GOAL_MS, _update(lambda i: [Op.PUT, i, b"v", None], filled=False)),
    ("10,000 PUT of sections that exist", WHOLE_GOAL_MS, _update(lambda i: [Op.PUT, i, b"v", None])),
    ("10,000 PATCH in the middle", WHOLE_GOAL_MS, _update(lambda i: [Op.PATCH, i, 4, b"vvvv", None])),
    ("10,000 DELETE", WHOLE_GOAL_MS, _update(lambda i: [Op.DELETE, i])),
    ("10,000 EXPIRATION_SET", WHOLE_GOAL_MS, _update(lambda i: [Op.EXPIRATION_SET, i, FAR_NS])),
    ("10,000 CREATE of generated ids", WHOLE_GOAL_MS, _update(lambda i: [Op.CREATE, b"", FAR_NS, b"v"])),
    ("1 PATCH in a section of 64 MiB", WHOLE_GOAL_MS, _large_write),
    ("64 PATCH in sections of 1 MiB", WHOLE_GOAL_MS, _many_writes),
    ("READ of 10,000 sections", WHOLE_GOAL_MS, _read_many),
    ("READ of 64 MiB", WHOLE_GOAL_MS, _read_large),
    ("first ITERATE of 200,000 sections", TURN_GOAL_MS, _first_iteration),
    ("ITERATE that selects none of 200,000", TURN_GOAL_MS, _empty_selection),
    (
        "5,000 UPDATE at once",
        TURN_GOAL_MS,
        _pipelined(Kind.UPDATE, [[Op.PUT, b"k", b"v" * 100, None]], b"", 100),
    ),
    ("5,000 READ at once", TURN_GOAL_MS, _pipelined(Kind.READ, [[b"k", 0, None]], bytes(100), 100)),
    ("250 READ of 1 MiB at once", TURN_GOAL_MS, _pipelined(Kind.READ, [[b"k", 0, None]], bytes(MIB), MIB)),
    ("1,000 trackers of one change", TURN_GOAL_MS, _trackers),
    ("50,000 sections expire", TURN_GOAL_MS, _expirations),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="of each case; the best is shown")
    parser.add_argument("--only", default="", metavar="TEXT", help="only the cases with TEXT in their title")
    arguments = parser.parse_args()
    rows = Rows(("", "goal ms", "longest event ms", "events", "all ms", "counted", "µs a unit"))
    for title, goal_ms, case in CASES:
        if arguments.only not in title:
            continue
        # The best of several rounds, because other programs empty the processor's caches.
        best: Times | None = None
        for _ in range(arguments.rounds):
            gc.collect()
            core = Core()
            case(core)
            if best is None or max(core.times.ns) < max(best.ns):
                best = core.times
        assert best is not None
        longest_ms, all_ms, work = max(best.ns) / 1e6, sum(best.ns) / 1e6, sum(best.work)
        rows.heading(title, "bold")
        rows.row(
            "" if longest_ms <= goal_ms else "missed",
            f"{goal_ms:g}",
            f"{longest_ms:.1f}",
            f"{len(best.ns):,}",
            f"{all_ms:.1f}",
            f"{work:,}",
            f"{1000 * all_ms / work:.2f}" if work else "",
        )
    rows.print(Console(highlight=False))


if __name__ == "__main__":
    main()
