"""The blocking connection when things go wrong: lost nodes, silence, garbage, forks, threads."""

import gc
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode, FakeService, Misbehaviour
from tests.client.fixtures import Start, service, start

from ckpt_client import CheckpointError, Connection, SaAisError, Table
from ckpt_client.io.connecting import connect_socket
from ckpt_client.session.address import parse_address
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame, encode_frame
from ckpt_protocol.messages import Kind, answer_error, answer_ok, encode_answer

__all__ = ["service", "start"]

STREAMS = ["unix", "tcp"]
ALL = ["unix", "tcp", "udp"]


def once(kind: int, deed: Callable[[FakeLink, Frame], Any]) -> Misbehaviour:
    """Do `deed` instead of serving the first request of a kind."""
    left = [1]

    def misbehave(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind != kind or not left:
            return False
        left.clear()
        deed(link, frame)
        return True

    return misbehave


def cut_before(link: FakeLink, frame: Frame) -> None:
    """The link is lost before the request is served."""
    link.cut()


def cut_after(link: FakeLink, frame: Frame) -> None:
    """The request is served, and its answer is lost with the link."""
    link.node.service.serve(link.node, link.session_id, frame)
    link.cut()


# -- lost links and nodes


@pytest.mark.parametrize("scheme", ALL)
@pytest.mark.parametrize("deed", [cut_before, cut_after])
def test_a_write_survives_the_loss_of_its_link_and_is_applied_once(
    scheme: str, deed: Callable[[FakeLink, Frame], Any], start: Start, service: FakeService
) -> None:
    node = start("a", scheme)
    with Table("x", 9, 100, 9, address=node.url) as table:
        node.misbehave = once(Kind.UPDATE, deed)
        table.Write("k", "v")
        assert table["k"] == b"v"
    assert service.checkpoints[b"x"].applied == 1
    assert service.applied_twice == []


@pytest.mark.parametrize("scheme", STREAMS)
def test_a_write_goes_to_the_next_node_with_session_and_handle(
    scheme: str, start: Start, service: FakeService
) -> None:
    a, b = start("a", scheme), start("b", scheme)
    with Table("x", 9, 100, 9, address=[a.url, b.url]) as table:
        table.Write("k", "1")
        handle, session = table.ckptHdl, table.svcHdl

        def lose_node(link: FakeLink, frame: Frame) -> None:
            link.node.service.serve(link.node, link.session_id, frame)
            link.node.die()

        a.misbehave = once(Kind.UPDATE, lose_node)
        table.Write("k", "2")
        assert table["k"] == b"2"
        assert (table.node_id, table.ckptHdl, table.svcHdl) == ("b", handle, session)
    assert service.checkpoints[b"x"].applied == 2
    assert service.applied_twice == []


def test_the_loss_of_an_idle_connection_is_met_by_the_next_call(start: Start) -> None:
    a, b = start("a"), start("b", "tcp")
    with Table("x", 9, 100, 9, address=f"{a.url},{b.url}") as table:
        table.Write("k", "v")
        a.stop()
        assert table["k"] == b"v"
        assert table.node_id == "b"


def test_the_client_goes_to_a_node_that_the_service_has_named(start: Start) -> None:
    a, b = start("a"), start("b", "tcp")
    b.hidden = False
    with Table("x", 9, 100, 9, address=a.url) as table:
        table.Write("k", "v")
        a.stop()
        assert table["k"] == b"v"


def test_all_nodes_gone_during_a_call_says_that_the_data_is_gone_with_them(start: Start) -> None:
    node = start("a")
    table = Table("x", 9, 100, 9, address=node.url)
    node.stop()
    with pytest.raises(CheckpointError) as caught:
        table.Write("k", "v", timeout=0.05)
    assert caught.value.code == codes.TIMEOUT
    assert "data is lost" in str(caught.value) and node.url in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        table.Read("k", timeout=0.05)
    assert caught.value.code in (codes.TIMEOUT, codes.UNAVAILABLE)
    table.close()


# -- nobody there, and others there


@pytest.mark.parametrize(
    "address", ["unix:///nowhere/ckptd.sock", "tcp://127.0.0.1:{port}", "udp://127.0.0.1:{port}"]
)
def test_no_daemon_is_an_error_that_names_the_address_and_how_to_start_one(address: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = address.format(port=taken.getsockname()[1])
        with pytest.raises(CheckpointError) as caught:
            Table("x", 1, 1, 1, address=url, timeout=0.05)
    assert caught.value.code == codes.UNAVAILABLE
    assert url in str(caught.value)
    assert "ckptd --node-id a --listen 127.0.0.1:7301" in str(caught.value)


def test_no_daemon_at_the_default_socket_names_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CKPTD_ADDRESS", raising=False)
    monkeypatch.setattr(
        "ckpt_client.session.address._default_paths", lambda: ["/nowhere/a.sock", "/nowhere/b.sock"]
    )
    with pytest.raises(CheckpointError) as caught:
        Table("x", 1, 1, 1, timeout=0.05)
    assert "/nowhere/a.sock" in str(caught.value) and "/nowhere/b.sock" in str(caught.value)


def test_a_host_that_does_not_exist_is_unavailable() -> None:
    with pytest.raises(CheckpointError) as caught:
        Table("x", 1, 1, 1, address="tcp://no..such..host:1")
    assert caught.value.code == codes.UNAVAILABLE


def test_another_program_on_the_port_is_unavailable(start: Start) -> None:
    node = start("a", "tcp")

    def greet(link: FakeLink, data: bytes) -> bool:
        link.send(b"220 mail.example.org ESMTP at your service, dear client\r\n")
        return True

    node.greets = greet
    with pytest.raises(CheckpointError) as caught:
        Table("x", 1, 1, 1, address=node.url)
    assert caught.value.code == codes.UNAVAILABLE
    assert "not a ckptd" in str(caught.value)


@pytest.mark.parametrize("scheme", ALL)
@pytest.mark.parametrize(
    ("node_key", "key", "cluster", "code"),
    [
        (b"secret", None, "", codes.ACCESS),
        (b"", "secret", "", codes.ACCESS),
        (b"", None, "other", codes.ACCESS),
        (b"secret", "secret", "test", 0),
        (b"", None, "test", 0),
    ],
)
def test_key_and_cluster_must_fit(
    scheme: str, node_key: bytes, key: str | None, cluster: str, code: int, start: Start
) -> None:
    node = start("a", scheme, key=node_key)
    if not code:
        with Table("x", 1, 10, 1, address=node.url, key=key, cluster=cluster) as table:
            table.Write("k", "v")
        return
    with pytest.raises(CheckpointError) as caught:
        Table("x", 1, 10, 1, address=node.url, key=key, cluster=cluster)
    assert caught.value.code == code


def test_a_wrong_key_over_a_stream_is_access(start: Start) -> None:
    node = start("a", key=b"secret")
    with pytest.raises(CheckpointError) as caught:
        Table("x", 1, 10, 1, address=node.url, key="wrong")
    assert caught.value.code == codes.ACCESS


def test_the_key_comes_from_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTD_KEY", "gehéim")
    monkeypatch.setenv("CKPTD_ADDRESS", start("a", key="gehéim".encode()).url)
    with Table("x", 1, 10, 1) as table:
        assert table.node_id == "a"


# -- answers that are late, doubled, missing or nonsense


@pytest.mark.parametrize("scheme", ALL)
def test_doubled_and_late_answers_are_ignored(scheme: str, start: Start) -> None:
    node = start("a", scheme)

    def double(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        if frame.kind == Kind.ATTACH:
            return False
        link.serve(frame)
        link.answer(frame.a, answer_error(codes.NO_SPACE))
        link.answer(frame.a - 1, answer_error(codes.NO_SPACE))
        if scheme == "udp":
            link.answer(10**9, answer_error(codes.NO_SPACE))
        return True

    node.misbehave = double
    with Table("x", 9, 100, 9, address=node.url) as table:
        for number in range(5):
            table.Write("k", str(number))
            assert table["k"] == str(number).encode()


@pytest.mark.parametrize("scheme", ALL)
def test_try_again_is_repeated_until_it_is_done(scheme: str, start: Start, service: FakeService) -> None:
    node = start("a", scheme)
    with Table("x", 9, 100, 9, address=node.url) as table:
        left = [3]

        def busy(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
            if frame.kind != Kind.UPDATE or not left[0]:
                return False
            left[0] -= 1
            link.answer(frame.a, answer_error(codes.TRY_AGAIN, "no view yet"))
            return True

        node.misbehave = busy
        table.Write("k", "v")
        updates = [frame for frame in node.received if frame.kind == Kind.UPDATE]
        assert len(updates) == 4
        assert len({(frame.a, frame.body) for frame in updates}) == 1


@pytest.mark.parametrize("scheme", ALL)
@pytest.mark.parametrize(
    ("answer", "code"), [(b"", codes.TIMEOUT), (answer_error(codes.TRY_AGAIN, "no view"), 6)]
)
def test_a_time_out_is_timeout_or_try_again(scheme: str, answer: bytes, code: int, start: Start) -> None:
    """Over datagrams a refusal may have come twice: nothing is sure once the request went out again."""
    code = codes.TIMEOUT if scheme == "udp" else code
    node = start("a", scheme)
    with Table("x", 9, 100, 9, address=node.url) as table:

        def never_do(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
            if frame.kind == Kind.UPDATE and answer:
                link.answer(frame.a, answer)
            return frame.kind == Kind.UPDATE

        node.misbehave = never_do
        with pytest.raises(CheckpointError) as caught:
            # The last repetition before it comes half a time-out earlier, so that its answer is there.
            table.Write("k", "v", timeout=0.5 if answer else 0.03)
        assert caught.value.code == code
        node.misbehave = None
        table.Write("k", "w")
        assert table["k"] == b"w"


def test_a_table_has_a_time_out_of_its_own(start: Start) -> None:
    node = start("a")
    with Table("x", 9, 100, 9, address=node.url, timeout=0.03) as table:
        node.misbehave = lambda node, link, frame: frame.kind == Kind.READ
        with pytest.raises(CheckpointError) as caught:
            table["k"]
        assert caught.value.code == codes.TIMEOUT


def test_a_daemon_that_never_answers_hello_is_a_time_out(start: Start) -> None:
    node = start("a")
    node.greets = lambda link, data: True
    with pytest.raises(CheckpointError) as caught:
        Table("x", 9, 100, 9, address=node.url, timeout=0.03)
    assert caught.value.code == codes.UNAVAILABLE


@pytest.mark.parametrize("scheme", STREAMS)
@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 29,
        b"\0" * 64,
        encode_frame(Kind.REPLICATE, 1, 2, 3, b"x"),
        encode_answer(10**9, 1, 1, answer_ok()),
        encode_answer(0, 1, 1, answer_ok()),
        encode_answer(1, 1, 1, b"\xc1")[:20],
        b"not even a header",
    ],
)
def test_garbage_from_the_daemon_costs_the_link_and_nothing_else(
    scheme: str, garbage: bytes, start: Start, service: FakeService
) -> None:
    node = start("a", scheme)

    def spoil(link: FakeLink, frame: Frame) -> None:
        link.node.service.serve(link.node, link.session_id, frame)
        link.send(garbage)
        link.cut()

    with Table("x", 9, 100, 9, address=node.url) as table:
        node.misbehave = once(Kind.UPDATE, spoil)
        table.Write("k", "v")
        assert table["k"] == b"v"
    assert service.checkpoints[b"x"].applied == 1


@pytest.mark.parametrize("payload", [None, 5, [], ["x"], [1, 2], {"a": 1}, [[1]]])
def test_answers_that_make_no_sense_are_a_library_error(payload: Any, start: Start) -> None:
    node = start("a")
    with Table("x", 9, 100, 9, address=node.url) as table:
        for kind, call in (
            (Kind.STATUS, table.status),
            (Kind.ITERATE, lambda: list(table)),
            (Kind.READ, lambda: table.Read(["a", "b", "c"])),
        ):
            node.misbehave = once(kind, lambda link, frame: link.answer(frame.a, answer_ok(payload)))
            with pytest.raises(CheckpointError) as caught:
                call()
            assert caught.value.code == codes.SaAisErrorT.SA_AIS_ERR_LIBRARY


# -- large values


@pytest.mark.parametrize("scheme", STREAMS)
@pytest.mark.parametrize("size_bytes", [32_000, 65_400, 65_536, 70_000, 3_000_000])
def test_large_values_come_through_whole(
    scheme: str, size_bytes: int, start: Start, service: FakeService
) -> None:
    node = start("a", scheme)
    value = os.urandom(1000) * (size_bytes // 1000) + b"end"
    with Table("x", 9, 10_000_000, 9, address=node.url) as table:
        table.Write("k", value)
        table.Write("other", "small")
        assert service.checkpoints[b"x"].sections[b"k"][0] == value
        assert table["k"] == value
        assert table.Read(["other", "k"]) == [b"small", value]


def test_a_large_answer_that_breaks_off_is_asked_for_elsewhere(start: Start) -> None:
    a, b = start("a"), start("b")
    value = bytes(1_000_000)
    with Table("x", 9, 10_000_000, 9, address=[a.url, b.url]) as table:
        table.Write("k", value)

        def break_off(link: FakeLink, frame: Frame) -> None:
            link.send(encode_answer(frame.a, 1, 1, answer_ok([value]))[:500_000])
            link.cut()

        a.misbehave = once(Kind.READ, break_off)
        assert table["k"] == value
        assert table.node_id == "b"


def test_what_does_not_fit_a_datagram_is_too_big(start: Start) -> None:
    with Table("x", 9, 10_000_000, 9, address=start("a", "udp").url) as table:
        with pytest.raises(CheckpointError) as caught:
            table.Write("k", bytes(100_000))
        assert caught.value.code == codes.TOO_BIG
        table.Write("k", bytes(50_000))


def test_a_call_of_too_many_bytes_is_no_resources(start: Start) -> None:
    node = start("a")
    with Table("x", 9, 2**40, 9, address=node.url) as table:
        asked = len(node.received)
        with pytest.raises(CheckpointError) as caught:
            table.Write("k", bytes(64 * 1024 * 1024 + 1))
        assert caught.value.code == codes.NO_RESOURCES
        assert len(node.received) == asked


# -- interruptions, forks, threads


class Interrupted(BaseException):
    """As KeyboardInterrupt, which a test runner would take for itself."""


def test_an_interrupted_call_does_not_spoil_the_next(
    start: Start, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start("a")
    with Table("x", 9, 100, 9, address=node.url) as table:
        session = table._connection._session
        with monkeypatch.context() as patch:
            patch.setattr(session, "receive", lambda data, now_ns: (_ for _ in ()).throw(Interrupted()))
            with pytest.raises(Interrupted):
                table.Write("k", "1")
        table.Write("k", "2")
        assert table["k"] == b"2"
    assert service.applied_twice == []


@contextmanager
def forked(child: Callable[[], bool]) -> Iterator[None]:
    """Run `child` in a fork; it must return True."""
    pid = os.fork()
    if pid == 0:
        good = False
        try:
            good = child()
        finally:
            os._exit(0 if good else 1)
    try:
        yield
    finally:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("scheme", ALL)
def test_after_a_fork_the_child_has_a_session_of_its_own(
    scheme: str, start: Start, service: FakeService
) -> None:
    with Table("x", 9, 100, 9, address=start("a", scheme).url) as table:
        table.Write("parent", "1")
        session = table.svcHdl

        def child() -> bool:
            table.Write("child", "2")
            good = table["parent"] == b"1" and table.svcHdl != session
            table.close()
            return good

        with forked(child):
            table.Write("meanwhile", "3")
        assert table.svcHdl == session
        assert table.read_all() == {b"parent": b"1", b"child": b"2", b"meanwhile": b"3"}
        assert list(service.sessions) == [session]


def test_a_fork_while_another_thread_calls_does_not_lock_the_child(start: Start) -> None:
    node = start("a")
    held, go_on = threading.Event(), threading.Event()
    with Table("x", 9, 100, 9, address=node.url) as table:

        def hold(link: FakeLink, frame: Frame) -> None:
            held.set()
            go_on.wait()
            link.serve(frame)

        node.misbehave = once(Kind.UPDATE, hold)
        writer = threading.Thread(target=table.Write, args=("k", "v"))
        writer.start()
        held.wait()
        # The node's thread is busy with the writer: the child must not need its answer.
        with forked(lambda: table._connection._lock.acquire(blocking=False) and table.ckptHdl == 0):
            pass
        go_on.set()
        writer.join()
        assert table["k"] == b"v"


def test_a_closed_table_stays_closed_after_a_fork(start: Start) -> None:
    table = Table("x", 9, 100, 9, address=start("a").url)
    table.close()

    def child() -> bool:
        try:
            table.Read("k")
        except CheckpointError as error:
            return error.code == codes.BAD_HANDLE
        return False

    with forked(child):
        pass


def test_threads_share_a_table(start: Start, service: FakeService) -> None:
    with Table("x", 100, 100, 9, address=start("a").url) as table:
        wrong: list[str] = []

        def work(name: str) -> None:
            for number in range(50):
                table.Write(name, str(number))
                if table[name] != str(number).encode():
                    wrong.append(name)

        threads = [threading.Thread(target=work, args=(f"t{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(table) == 4
    assert service.checkpoints[b"x"].applied == 200
    assert service.applied_twice == []


def test_a_thread_that_does_not_get_its_turn_in_time_has_done_nothing(start: Start) -> None:
    node = start("a")
    held, go_on = threading.Event(), threading.Event()
    with Table("x", 9, 100, 9, address=node.url) as table:

        def hold(link: FakeLink, frame: Frame) -> None:
            held.set()
            go_on.wait()
            link.serve(frame)

        node.misbehave = once(Kind.UPDATE, hold)
        writer = threading.Thread(target=table.Write, args=("k", "v"))
        writer.start()
        held.wait()
        with pytest.raises(CheckpointError) as caught:
            table.Write("k", "w", timeout=0.01)
        assert caught.value.code == codes.TRY_AGAIN
        go_on.set()
        writer.join()
        assert table["k"] == b"v"


# -- the connection itself


def test_describe_and_unlink_need_no_table(start: Start, service: FakeService) -> None:
    node = start("a")
    Table("x", 9, 100, 9, address=node.url).close()
    connection = Connection(node.url)
    cluster = connection.describe("cluster")
    assert (cluster.node_id, cluster.serving, cluster.members) == ("a", True, ())
    assert cluster.raw == {"node_id": "a", "serving": True}
    connection.unlink("x")
    assert service.checkpoints == {}
    with pytest.raises(SaAisError) as caught:
        connection.unlink("x")
    assert caught.value.code == codes.NOT_EXIST
    connection.close()
    with pytest.raises(SaAisError) as caught:
        connection.describe("cluster")
    assert caught.value.code == codes.BAD_HANDLE


def test_sockets_are_closed(start: Start, tmp_path: Path) -> None:
    node = start("a")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        with Table("x", 9, 100, 9, address=node.url) as table:
            table.Write("k", "v")
    node.stop()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_connecting_closes_its_socket_on_failure(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        connect_socket(parse_address(f"unix://{tmp_path}/none"), 1.0)


@pytest.mark.parametrize("scheme", ALL)
def test_a_table_that_is_forgotten_is_closed(scheme: str, start: Start, service: FakeService) -> None:
    node = start("a", scheme)
    with Table("x", 9, 100, 9, address=node.url) as witness:
        forgotten = Table("x", address=node.url)
        forgotten.Write("k", "v")
        assert witness.status().opens == 2
        del forgotten
        while witness.status().opens == 2:
            pass
        assert list(service.sessions) == [witness.svcHdl]


def test_a_program_that_ends_without_closing_says_goodbye(start: Start, service: FakeService) -> None:
    node = start("a", "tcp")
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(str(root / folder) for folder in ("protocol", "client"))
    program = "from ckpt_client import Table; table = Table('x'); table.Write('k', 'v')"
    with Table("x", 9, 100, 9, address=node.url) as witness:
        environment = {**os.environ, "PYTHONPATH": path, "CKPTD_ADDRESS": node.url}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
        while witness.status().opens == 2:
            pass
        assert witness["k"] == b"v"
        assert list(service.sessions) == [witness.svcHdl]


def test_a_table_whose_arguments_are_refused_is_forgotten_quietly() -> None:
    with pytest.raises(CheckpointError):
        Table("x", 1, 1, 1, address="http://nowhere")
    gc.collect()
