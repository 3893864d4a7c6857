"""Replay a daemon's recording on a fresh core, and compare the effects: `--replay FILE`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception_only
from typing import Any

import msgpack

from ckptd.core.checks.event_log_format import (
    LoggedEvent,
    LogHeader,
    RecordingError,
    digest_of,
    parse_entry,
    parse_header,
)
from ckptd.core.events import Log
from ckptd.core.hub import Limits, Transport
from ckptd.core.make_core import Core, make_core
from ckptd.sim.trace import describe_effect, describe_event


@dataclass(slots=True)
class Replay:
    """The outcome of a replay. `difference` is "" if everything was the same."""

    start: LogHeader
    events: int = 0
    difference: str = ""
    failure: str = ""
    """What the core raised, both in the replay and in the daemon."""

    time_line: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """True if the core did the same as in the daemon."""
        return not self.difference


@dataclass(slots=True)
class _Answers:
    """What the runtime answered during the event that is replayed."""

    counts: dict[str, int] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)


def replay(path: Path) -> Replay:
    """Replay a recording up to the first difference or to its end, which may be cut off.

    Raises: RecordingError; OSError.
    """
    with open(path, "rb") as file:
        contents = _contents(file)
        try:
            start = parse_header(next(contents))
        except StopIteration:
            raise RecordingError("the file is empty") from None
        outcome = Replay(start)
        answers = _Answers()
        node = make_core(
            start.settings,
            start.incarnation,
            start.record,
            start.now_ns,
            start.wall_offset_ns,
            Transport(start.urls, lambda: answers.counts, lambda: answers.limits),
        )
        for content in contents:
            entry = parse_entry(content, lambda packed: msgpack.unpackb(packed, strict_map_key=False))
            outcome.events += 1
            answers.counts, answers.limits = entry.counts or {}, entry.limits or {}
            _replay_event(outcome, node, entry)
            if outcome.difference or outcome.failure:
                break
    return outcome


def _contents(file: Any) -> Iterator[Any]:
    try:
        yield from msgpack.Unpacker(file, max_buffer_size=0, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise RecordingError(f"the file is damaged: {error!r}") from None


def _replay_event(outcome: Replay, node: Core, entry: LoggedEvent) -> None:
    try:
        effects = node.handle(entry.event, entry.now_ns)
    except Exception as error:
        text = "".join(format_exception_only(error)).strip()
        if entry.digest is None:
            outcome.failure = text
        else:
            outcome.difference = _at_event(
                outcome, entry, f"the core raised, but it did not when it was recorded: {text}"
            )
        return
    for effect in effects:
        if isinstance(effect, Log):
            at_s = (entry.now_ns - outcome.start.now_ns) / 1e9
            outcome.time_line.append(f"{at_s:12.6f} s  #{outcome.events}  {effect.level}: {effect.text}")
    if entry.digest is None:
        outcome.difference = _at_event(
            outcome, entry, "the core did not raise, but it did when it was recorded"
        )
    elif digest_of(effects) != entry.digest:
        done = "".join(f"\n    {describe_effect(effect)}" for effect in effects)
        outcome.difference = _at_event(
            outcome, entry, f"the effects differ from the recorded ones; now they are:{done}"
        )


def _at_event(outcome: Replay, entry: LoggedEvent, text: str) -> str:
    return f"event {outcome.events} ({describe_event(entry.event)}): {text}"
