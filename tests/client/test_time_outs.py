"""A call's time-out is kept, whatever the node or the network does. A test hangs where it is not.

Each scenario runs over the blocking and over the asyncio connection.
"""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.client.fake_service import FakeLink, FakeNode
from tests.client.fixtures import Start, service, start
from tests.client.test_blocking_connection import ALL, STREAMS, once

from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_client.io.connecting import connect_socket
from ckpt_client.session.address import parse_address
from ckpt_client.session.call import MILLISECOND_NS
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_ok, encode_answer

__all__ = ["service", "start"]

SHELLS = ["blocking", "asyncio"]
SECOND_NS = 1000 * MILLISECOND_NS
NO_ANSWER = (codes.TIMEOUT, codes.UNAVAILABLE)
pytestmark = pytest.mark.timeout(30)


class Asker:
    """One open table, by either shell."""

    def __init__(self, shell: str, url: Any, timeout: float = 10.0, size: int = 100) -> None:
        self._runner = asyncio.Runner() if shell == "asyncio" else None
        self.table: Any
        if self._runner is None:
            self.table = Table("x", 9, size, 9, address=url, timeout=timeout)
        else:
            try:
                opening = AsyncTable.open("x", 9, size, 9, address=url, timeout=timeout)
                self.table = self._runner.run(opening)
            except BaseException:
                self._runner.close()
                raise

    def write(self, key: str, value: Any, timeout: float = 10.0) -> None:
        if self._runner is None:
            self.table.Write(key, value, timeout=timeout)
        else:
            self._runner.run(self.table.write(key, value, timeout=timeout))

    def read(self, key: str, timeout: float = 10.0) -> bytes:
        if self._runner is None:
            return bytes(self.table.Read(key, timeout=timeout))
        return bytes(self._runner.run(self.table.read(key, timeout=timeout)))

    def close(self) -> None:
        if self._runner is None:
            self.table.close()
        else:
            self._runner.run(self.table.close())
            self._runner.close()

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def refused(call: Callable[..., Any], *arguments: Any, **named: Any) -> CheckpointError:
    """The error of a call that fails."""
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **named)
    return caught.value


@contextmanager
def deaf_port() -> Iterator[str]:
    """A TCP address at which connections are neither made nor refused: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        where = listener.getsockname()
        waiting = []
        try:
            for _ in range(4):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(where)
                waiting.append(sock)
            yield f"tcp://127.0.0.1:{where[1]}"
        finally:
            for sock in waiting:
                sock.close()


# -- nobody answers


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", ALL)
def test_a_node_that_accepts_and_never_answers(shell: str, scheme: str, start: Start) -> None:
    node = start("a", scheme)
    with Asker(shell, node.url) as asker:
        node.misbehave = lambda node, link, frame: frame.kind != Kind.DETACH
        assert refused(asker.write, "k", "v", timeout=0.05).code == codes.TIMEOUT
        assert refused(asker.read, "k", timeout=0.05).code == codes.TIMEOUT
        node.misbehave = None
        asker.write("k", "w")
        assert asker.read("k") == b"w"


@pytest.mark.parametrize("timeout", [10.0, 0.3])
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", ALL)
def test_a_node_that_falls_silent_is_left_for_the_next(
    shell: str, scheme: str, timeout: float, start: Start
) -> None:
    """The blocking shell stayed for ever: it took each PING that it sent for a sign of life."""
    a, b = start("a", scheme), start("b", scheme)
    with Asker(shell, [a.url, b.url]) as asker:
        asker.write("k", "v")
        a.misbehave = lambda node, link, frame: True
        for _ in range(10):
            try:
                asker.write("k", "w", timeout=timeout)
            except CheckpointError as error:
                assert error.code == codes.TIMEOUT
            else:
                break
        assert asker.table.node_id == "b"
        assert asker.read("k") == b"w"


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", STREAMS)
def test_a_node_that_stops_in_the_middle_of_a_large_write_is_left_for_the_next(
    shell: str, scheme: str, start: Start
) -> None:
    a, b, over = start("a", scheme), start("b", scheme), threading.Event()

    def stop(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        over.wait()
        return True

    asker = Asker(shell, [a.url, b.url], size=10_000_000)
    try:
        asker.write("k", "v")
        a.misbehave = stop
        asker.write("k", bytes(8_000_000))
        assert asker.table.node_id == "b"
        asker.close()
    finally:
        over.set()


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", STREAMS)
def test_a_large_write_that_is_taken_in_slowly_is_no_silence(
    shell: str, scheme: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes longer than a node may be silent; nothing comes back before all of it is there."""
    monkeypatch.setattr("ckpt_client.session.link_and_fail_over.DEAD_AFTER_NS", 300 * MILLISECOND_NS)
    monkeypatch.setattr("ckpt_client.session.node_silence.PING_AFTER_NS", 100 * MILLISECOND_NS)
    node, second = start("a", scheme), start("b", scheme)
    with Asker(shell, [node.url, second.url], size=10_000_000) as asker:
        asker.write("k", "v")
        node.pause_s, node.piece_bytes = 0.02, 131_072
        asker.write("k", bytes(8_000_000))
        assert asker.table.node_id == "a"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_node_that_never_answers_hello(shell: str, start: Start) -> None:
    node = start("a", "tcp")
    node.greets = lambda link, data: True
    assert refused(Asker, shell, node.url, timeout=0.05).code == codes.UNAVAILABLE


@pytest.mark.parametrize("shell", SHELLS)
def test_a_node_that_never_answers_attach(shell: str, start: Start) -> None:
    node = start("a", "tcp")
    node.misbehave = lambda node, link, frame: frame.kind == Kind.ATTACH
    assert refused(Asker, shell, node.url, timeout=0.05).code == codes.UNAVAILABLE


@pytest.mark.parametrize("shell", SHELLS)
def test_a_connection_that_is_never_made(shell: str) -> None:
    with deaf_port() as url:
        assert refused(Asker, shell, url, timeout=0.05).code == codes.UNAVAILABLE


@pytest.mark.parametrize("shell", SHELLS)
def test_a_connection_that_is_never_made_lets_the_next_address_be_tried(shell: str, start: Start) -> None:
    with deaf_port() as url, Asker(shell, [url, start("b").url]) as asker:
        asker.write("k", "v")
        assert asker.table.node_id == "b"


@pytest.mark.parametrize("shell", SHELLS)
def test_opening_again_and_the_call_share_one_time_out(
    shell: str, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocking one gave the call its whole time-out once more, after the checkpoint was open."""
    now_ns, given = SECOND_NS, []
    node = start("a")

    def note(call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
            nonlocal now_ns
            given.append((kind, timeout_ns))
            now_ns += 3 * SECOND_NS
            return call(kind, handle, body, timeout_ns)

        return noted

    with Asker(shell, node.url) as asker:
        asker.table._operations.handle = 0  # It could not be opened again when its node was lost.
        monkeypatch.setattr("ckpt_client.io.time_limit._monotonic_ns", lambda: now_ns)
        if shell == "blocking":
            asker.table._call_service = note(asker.table._call_service)
        else:
            monkeypatch.setattr(asker.table._connection, "call", note(asker.table._connection.call))
        asker.write("k", "v", timeout=10.0)
    assert given[:2] == [(Kind.OPEN, 10 * SECOND_NS), (Kind.UPDATE, 7 * SECOND_NS)]


# -- names that take long


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The name server does not answer before the test is over."""
    over = threading.Event()
    ask = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if named.get("flags", more[3] if len(more) > 3 else 0) & socket.AI_NUMERICHOST or "slow" not in host:
            return ask(host, port, *more, **named)
        over.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield
    over.set()


def test_a_name_server_that_does_not_answer_takes_no_more_than_the_call_has(slow_names: None) -> None:
    """A look-up has no time-out of its own: with two name servers down it took ten seconds and more."""
    error = refused(Table, "x", 1, 1, 1, address="tcp://slow.example:1", timeout=0.05)
    assert error.code == codes.UNAVAILABLE
    assert "not resolved" in str(error)


def test_a_name_server_that_does_not_answer_does_not_hold_up_a_loop(slow_names: None, start: Start) -> None:
    """Its threads were tied up, and waited for at its end."""
    error = refused(Asker, "asyncio", "tcp://slow.example:1", timeout=0.05)
    assert error.code == codes.UNAVAILABLE
    with Asker("asyncio", ["tcp://slow.example:1", start("b").url]) as asker:
        assert asker.table.node_id == "b"


def test_a_name_that_is_not_resolved_lets_the_next_address_be_tried(slow_names: None, start: Start) -> None:
    with Table("x", 9, 100, 9, address=["tcp://slow.example:1", start("b").url]) as table:
        assert table.node_id == "b"


def test_all_addresses_of_a_name_share_one_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf_port() as url:
        port = int(url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))] * 1000
        monkeypatch.setattr("ckpt_client.io.connecting._resolve", lambda *_: found)
        with pytest.raises(TimeoutError):
            connect_socket(parse_address(url), 0.05)


# -- answers that trickle


def trickle(link: FakeLink, data: bytes, over: threading.Event) -> None:
    """One byte after the other, until the test is over or the client has gone."""
    for place in range(len(data)):
        if over.wait(0.002):
            return
        try:
            link.sock.send(data[place : place + 1])
        except OSError:
            return


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", STREAMS)
@pytest.mark.parametrize("size", [2_000, 1_000_000])
def test_an_answer_that_trickles(shell: str, scheme: str, size: int, start: Start) -> None:
    """A large one was received to its end, in a buffer of its size, without a look at the time."""
    node, over = start("a", scheme), threading.Event()
    threads: list[threading.Thread] = []

    def drip(link: FakeLink, frame: Frame) -> None:
        answer = encode_answer(frame.a, 1, 1, answer_ok([bytes(size)]))
        threads.append(threading.Thread(target=trickle, args=(link, answer, over)))
        threads[-1].start()

    try:
        with Asker(shell, node.url, size=2_000_000) as asker:
            asker.write("k", "v")
            node.misbehave = once(Kind.READ, drip)
            assert refused(asker.read, "k", timeout=0.1).code == codes.TIMEOUT
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_the_rest_of_a_large_answer_that_came_too_late_is_received_by_the_next_call(start: Start) -> None:
    node = start("a")
    late: list[tuple[FakeLink, bytes]] = []

    def half(link: FakeLink, frame: Frame) -> None:
        answer = encode_answer(frame.a, 1, 1, answer_ok([bytes(200_000)]))
        late.append((link, answer[100_000:]))
        link.send(answer[:100_000])

    with Table("x", 9, 1_000_000, 9, address=node.url) as table:
        table.Write("k", "v")
        node.misbehave = once(Kind.READ, half)
        assert refused(table.Read, "k", timeout=0.1).code == codes.TIMEOUT
        link, rest = late[0]
        link.send(rest)
        assert table["k"] == b"v"
        assert node.kinds().count(Kind.ATTACH) == 1, "the link goes on"


# -- requests that are not taken


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("scheme", STREAMS)
def test_a_node_that_takes_nothing_in(shell: str, scheme: str, start: Start) -> None:
    node, over = start("a", scheme), threading.Event()

    def stop(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        over.wait()
        return False

    asker = Asker(shell, node.url, size=10_000_000)
    try:
        node.misbehave = stop
        assert refused(asker.write, "k", "v", timeout=0.05).code == codes.TIMEOUT
        assert refused(asker.write, "k", bytes(8_000_000), timeout=0.1).code in NO_ANSWER
        assert refused(asker.write, "k", "v", timeout=0.1).code in NO_ANSWER
    finally:
        over.set()
        node.misbehave = None
    asker.write("k", "w")
    assert asker.read("k") == b"w"
    asker.close()


# -- signals


def test_signals_that_keep_coming_do_not_stop_the_clock(start: Start) -> None:
    """Each began a receive anew, with the kernel's time-out: a profiler's timer made it wait for ever."""
    node = start("a")
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        with Table("x", 9, 100, 9, address=node.url) as table:
            table.Write("k", "v")
            node.misbehave = lambda node, link, frame: frame.kind != Kind.DETACH
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            assert refused(table.Read, "k", timeout=1.2).code == codes.TIMEOUT
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
