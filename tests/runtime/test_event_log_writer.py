"""What a core is told is written down, and a fresh core that is told the same does the same."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
from tests.runtime.fakes import FakeNode, running

from ckpt_client import Table
from ckpt_protocol.framing import Frame
from ckptd.core import events
from ckptd.core.checks.event_log_format import RecordingError, digest_of, pack_entry, pack_event, parse_entry
from ckptd.core.events import Effect, Event, LeaveAsked, PeerReceived, TimeCame, WallClockRead
from ckptd.core.hub import Transport
from ckptd.core.node import Node
from ckptd.core.settings import Settings
from ckptd.runtime.errors import NodeFailed, StartError
from ckptd.runtime.event_log_writer import EventLogWriter
from ckptd.runtime.event_recorder import EventRecorder
from ckptd.sim import __main__ as command
from ckptd.sim.replay import replay
from ckptd.testing import LocalCluster

FRAME = Frame(50, 2**64 - 1, 0, 7, b"\x00body")
EVENTS: list[Event] = [
    events.ClientConnected(1),
    events.ClientReceived(1, [FRAME, FRAME]),
    events.ClientLost(1, True),
    events.PeerConnected("b", 2**62, ("tcp://h:1",)),
    PeerReceived("b", [FRAME]),
    events.PeerLost("b"),
    events.PeerRefused("é"),
    events.PeerTrouble("b", 14, "é"),
    events.Outranked("b", 2**62),
    events.HeartbeatReceived(FRAME),
    WallClockRead(-5),
    events.Persisted(3),
    events.PersistFailed(4, "full"),
    events.RegisterAnswered(5, True, 6, None),
    events.RegisterAnswered(5, False, 6, b"\xff"),
    events.RegisterFailed(7, "why"),
    events.FenceEnded("b", True, "done"),
    LeaveAsked(),
    TimeCame(),
    events.TurnCame(),
    events.ClientCongested(2),
    events.ClientDrained(2),
]


def unpack(content: bytes) -> Any:
    return msgpack.unpackb(content, strict_map_key=False)


def test_every_kind_of_event_comes_back_as_it_was() -> None:
    for event in EVENTS:
        entry = parse_entry(unpack(pack_entry(9, pack_event(event), 8, {"n": 1}, {"m": (2, 3)})), unpack)
        assert entry.event == event
        assert (entry.now_ns, entry.digest, entry.counts) == (9, 8, {"n": 1})
        assert entry.limits == {"m": (2, 3)}
    assert {type(event) for event in EVENTS} == set(events.Event.__args__)


def test_an_event_of_another_version_is_refused() -> None:
    packed = msgpack.packb(["DayBroke", []])
    with pytest.raises(RecordingError, match="by another version"):
        parse_entry([1, packed, 0, None], unpack)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([events.SendPeer("b", b"12")], [events.SendPeer("b", b"1"), events.SendPeer("b", b"2")]),
        ([events.SendPeer("b", b"1")], [events.SendHeartbeat("b", b"1")]),
        ([events.Persist(b"1", 1)], [events.Persist(b"1", 2)]),
        ([events.Leave()], []),
        ([events.AskRegister(1, 0, None)], [events.AskRegister(1, 0, b"None")]),
    ],
)
def test_effects_that_differ_have_other_digests(one: list[Effect], other: list[Effect]) -> None:
    assert digest_of(one) != digest_of(other)
    assert digest_of(one) == digest_of(list(one))


class Recorded:
    """A core whose events are recorded."""

    def __init__(self, directory: Path, make: Callable[..., Any] = FakeNode, bytes_max: int = 2**20) -> None:
        self.writer = EventLogWriter(directory, bytes_max, "a", 1)
        self.recorder = EventRecorder(self.writer, Transport())
        start = Settings("a"), 1, b"", 0, 0
        self.node = make(*start, self.recorder.transport)
        self.recorder.begin(*start)

    def handle(self, event: Event, now_ns: int) -> list[Effect]:
        return self.recorder.handle(self.node, event, now_ns)


def test_a_replay_finds_the_first_event_whose_effects_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Other(Node):
        def handle(self, event: Event, now_ns: int) -> list[Effect]:
            effects = super().handle(event, now_ns)
            return [*effects, events.Leave()] if isinstance(event, LeaveAsked) else effects

    node = Recorded(tmp_path, Other)
    for event in (WallClockRead(0), TimeCame(), LeaveAsked(), TimeCame()):
        node.handle(event, 1)
    path = node.writer.path
    node.writer.close()
    outcome = replay(path)
    assert outcome.events == 3
    assert outcome.difference.startswith("event 3 (LeaveAsked()): the effects differ from the recorded ones")
    assert command.main(["--replay", str(path)]) == 1
    assert "node a, ckptd" in capsys.readouterr().out


def test_what_the_core_raised_is_recorded_and_raised_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Node) -> None:
        raise AssertionError("epoch 3 after epoch 4")

    with monkeypatch.context() as patch:
        patch.setattr(Node, "_on_time", fail)
        node = Recorded(tmp_path, Node)
        path = node.writer.path
        node.handle(WallClockRead(0), 1)
        with pytest.raises(AssertionError):
            node.handle(TimeCame(), 2)
        assert replay(path).failure == "AssertionError: epoch 3 after epoch 4"
        assert command.main(["--replay", str(path)]) == 0
        assert "2 events, the same effects, and the last one raises: Asser" in capsys.readouterr().out
    assert (
        replay(path).difference
        == "event 2 (TimeCame()): the core did not raise, but it did when it was recorded"
    )


async def test_a_daemon_whose_core_raises_leaves_a_recording_of_it(tmp_path: Path) -> None:
    def fail(event: Event) -> list[Effect]:
        raise AssertionError("ours")

    with pytest.raises(NodeFailed):
        async with running(tmp_path, record_events=tmp_path / "recordings") as a:
            a.node.on[LeaveAsked] = fail
    (path,) = (tmp_path / "recordings").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    contents = list(msgpack.Unpacker(path.open("rb"), strict_map_key=False))
    assert contents[0]["settings"]["node_id"] == "a"
    assert unpack(contents[-1][1]) == ["LeaveAsked", []]
    assert contents[-1][2] is None


async def test_a_daemon_that_does_not_record_has_nothing_in_its_way(tmp_path: Path) -> None:
    async with running(tmp_path) as a:
        assert a.driver._recorder is None


def test_a_recording_that_is_full_stops_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Recorded(tmp_path, bytes_max=2_000)
    for _ in range(1_000):
        node.handle(TimeCame(), 1)
    assert caplog.text.count("recording stops") == 1
    assert 1_000 < node.writer.path.stat().st_size <= 2_000
    # What earlier starts left counts too.
    again = EventLogWriter(tmp_path, 2_000, "a", 2)
    again.write(bytes(1_000))
    again.close()
    assert again.path.stat().st_size == 0


def test_a_disk_that_fails_stops_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    node = Recorded(tmp_path)
    writer = node.writer
    file = writer._file
    assert file is not None
    os.dup2(os.open("/dev/full", os.O_WRONLY), file.fileno())
    node.handle(TimeCame(), 1)
    writer.flush()
    assert os.strerror(errno.ENOSPC) in caplog.text
    assert file.closed
    assert node.handle(TimeCame(), 1) == []
    writer.close()


def test_a_directory_that_every_user_may_change_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match="every user may write"):
        EventLogWriter(tmp_path, 2**20, "a", 1)
    tmp_path.chmod(0o1777)
    EventLogWriter(tmp_path, 2**20, "a", 1).close()


def test_a_directory_that_cannot_be_made_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"record_events .*file: File exists"):
        EventLogWriter(tmp_path / "file", 1, "a", 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"text", "does not start with"),
        (msgpack.packb({"format": 99}), "has format 99; this version reads format 1"),
        (b"\xc1", "is damaged"),
    ],
)
def test_a_file_that_is_no_recording_is_reported(
    tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert command.main(["--replay", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_cluster_that_lost_a_node_replays_to_the_same_effects(tmp_path: Path) -> None:
    directory = tmp_path / "recordings"
    with LocalCluster(3, flags=("--record-events", str(directory)), name="recorded") as cluster:
        with Table("orders", 100, 1024, 32, address=cluster.addresses()) as table:
            for number in range(50):
                table.Write(str(number), "tea")
            cluster.describe()
            killed = cluster.active_node("orders")
            assert killed is not None
            cluster.kill(killed)
            for number in range(50):
                table.Write(str(number), "coffee")
            assert table["7"] == b"coffee"
        left = [node for node in cluster.node_ids if node != killed]
        # The second takes the last copies with it, and says so by its exit code.
        assert [cluster.leave(node) for node in left] == [0, 3]
    outcomes = {path.name[0]: replay(path) for path in directory.iterdir()}
    assert sorted(outcomes) == ["a", "b", "c"]
    assert [outcome.difference or outcome.failure for outcome in outcomes.values()] == ["", "", ""]
    for node in left:
        assert outcomes[node].events > 50
        assert any(f"node {killed}" in line for line in outcomes[node].time_line)
