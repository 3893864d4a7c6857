"""A table that is created before its daemon: it waits, within its time-out, as every later call does."""

import asyncio
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.client.cancelling import cancel_everywhere, run_clean
from tests.client.fake_service import FakeLink, FakeNode, FakeService
from tests.client.fixtures import service
from tests.client.test_async_table import assert_loop_is_clean
from tests.client.test_coming_back import SHELLS
from typer.testing import CliRunner

from ckpt_client import AsyncTable, CheckpointError, Connection, SaAisError, Table
from ckpt_client.requests import table_requests
from ckpt_client.saf import CheckpointCreationAttributes, CheckpointService
from ckpt_client.session.address import Address, default_addresses
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_CREATE as CREATE
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_READ as READ
from ckpt_protocol.constants import SA_CKPT_CHECKPOINT_WRITE as WRITE
from ckpt_protocol.constants import SA_CKPT_WR_ALL_REPLICAS
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_error
from ckptctl.commands import app

__all__ = ["service"]

pytestmark = pytest.mark.timeout(60)

LATER_S = 0.1
"""How long after the table its daemon starts. What a test measures does not depend on it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the daemon will listen."""
    return tmp_path / "a.sock"


@pytest.fixture
def url(path: Path) -> str:
    """Its address."""
    return f"unix://{path}"


@contextmanager
def starting(service: FakeService, path: Path, prepare: Callable[[FakeNode], None] = id) -> Iterator[None]:
    """A node starts a little later."""
    nodes: list[FakeNode] = []

    def start() -> None:
        path.unlink(missing_ok=True)
        nodes.append(FakeNode(service, path=str(path)))
        prepare(nodes[0])

    timer = threading.Timer(LATER_S, start)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        nodes[0].stop()


def abandoned(path: Path) -> None:
    """A socket file is there, but its daemon was killed: connections are refused."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def refuse_at_first(node: FakeNode) -> None:
    """The daemon is there, but it serves nothing yet."""
    refusals = iter(range(3))

    def misbehave(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        refused = frame.kind == Kind.ATTACH and next(refusals, None) is not None
        if refused:
            link.answer(frame.a, answer_error(codes.TRY_AGAIN, "no view yet"))
        return refused

    node.misbehave = misbehave


def hang_up_at_first(node: FakeNode) -> None:
    """The daemon accepts connections and closes them."""
    losses = iter(range(3))

    def greets(link: FakeLink, data: bytes) -> bool:
        lost = next(losses, None) is not None
        if lost:
            link.cut()
        return lost

    node.greets = greets


def write_and_read(shell: str, url: str, **named: Any) -> bytes:
    """Open a table, write to it, and read that again."""
    if shell == "blocking":
        with Table("x", 9, 100, 9, address=url, **named) as table:
            table["k"] = b"v"
            return table["k"]

    async def use() -> bytes:
        async with await AsyncTable.open("x", 9, 100, 9, address=url, **named) as table:
            await table.write("k", b"v")
            return await table.read("k")

    return asyncio.run(use())


def refused(shell: str, **named: Any) -> CheckpointError:
    """The error of a table that cannot be opened."""
    with pytest.raises(CheckpointError) as caught:
        if shell == "blocking":
            Table("x", 9, 100, 9, **named)
        else:
            asyncio.run(AsyncTable.open("x", 9, 100, 9, **named))
    return caught.value


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("before", [lambda path: None, abandoned], ids=["no socket", "nobody listens"])
@pytest.mark.parametrize("prepare", [id, refuse_at_first, hang_up_at_first])
def test_a_table_waits_for_its_daemon(
    shell: str, before: Any, prepare: Any, path: Path, url: str, service: FakeService
) -> None:
    """Where a supervisor starts the program and the daemon together, the table failed at once."""
    before(path)
    with starting(service, path, prepare):
        assert write_and_read(shell, url) == b"v"
    assert service.sessions == {}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_table_without_a_limit_waits_for_its_daemon(
    shell: str, path: Path, url: str, service: FakeService
) -> None:
    with starting(service, path):
        assert write_and_read(shell, url, timeout=math.inf) == b"v"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_table_connects_to_whichever_daemon_starts_first(
    shell: str, path: Path, url: str, service: FakeService
) -> None:
    with starting(service, path):
        assert write_and_read(shell, f"unix://{path}.never,{url}") == b"v"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_host_that_has_no_address_yet_is_waited_for(
    shell: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's name is unknown until the container has started."""
    node = FakeNode(service, scheme="tcp")
    failures = iter(range(3))
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **named: Any) -> Any:
        if host != "ckptd-1":
            return look_up(host, port, *more, **named)
        if named.get("flags") or next(failures, None) is not None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return look_up("127.0.0.1", port, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        assert write_and_read(shell, node.url.replace("127.0.0.1", "ckptd-1")) == b"v"
    finally:
        node.stop()


@pytest.mark.parametrize("shell", SHELLS)
def test_the_time_out_is_over_before_a_daemon_starts(shell: str, url: str) -> None:
    """The error is that of a later call whose nodes are all gone, and has every address."""
    began = time.monotonic()
    error = refused(shell, address=[url, "tcp://127.0.0.1:1"], timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 5.0
    assert error.code == codes.UNAVAILABLE
    assert url in str(error) and "tcp://127.0.0.1:1" in str(error) and "ckptd --node-id a" in str(error)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_daemon_that_serves_nothing_until_the_time_out_is_try_again(
    shell: str, path: Path, service: FakeService
) -> None:
    def serve_nothing(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        link.answer(frame.a, answer_error(codes.TRY_AGAIN, "waiting for node b"))
        return True

    node = FakeNode(service, path=str(path))
    node.misbehave = serve_nothing
    try:
        error = refused(shell, address=node.url, timeout=0.2)
    finally:
        node.stop()
    assert error.code == codes.TRY_AGAIN and "waiting for node b" in str(error) and node.url in str(error)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"key": b"a key of another cluster"}, codes.ACCESS),
        ({"cluster": "another"}, codes.ACCESS),
        ({"address": "tcp://host"}, codes.INVALID_PARAM),
        ({"address": "tcp://no..such..host:1"}, codes.UNAVAILABLE),
        ({"timeout": 0}, codes.INVALID_PARAM),
        ({"flags": 2**70}, codes.INVALID_PARAM),
    ],
    ids=["key", "cluster", "address", "host", "time-out", "flags"],
)
def test_what_no_wait_will_change_fails_at_once(
    shell: str, wrong: dict[str, Any], code: int, path: Path, service: FakeService
) -> None:
    node = FakeNode(service, path=str(path))
    try:
        error = refused(shell, **{"address": node.url, "timeout": math.inf, **wrong})
    finally:
        node.stop()
    assert error.code == code


@pytest.mark.parametrize("shell", SHELLS)
def test_no_time_out_given_is_that_of_every_call(
    shell: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Table(timeout=None)` had no limit, while a call's `timeout=None` was the table's."""
    given: list[float | None] = []

    def note(timeout: float | None, default_ns: int = table_requests.TIMEOUT_NS) -> int:
        given.append(timeout)
        assert default_ns == 10 * 10**9
        return 1

    monkeypatch.setattr(table_requests, "timeout_in_ns", note)
    refused(shell, address=url)
    refused(shell, address=url, timeout=None)
    assert given == [10.0, None]


# -- what ends the wait


def test_an_open_that_waits_is_cancelled_at_every_turn(url: str) -> None:
    async def work() -> None:
        async def open_in_vain() -> None:
            with pytest.raises(CheckpointError):
                await AsyncTable.open("x", 9, 100, 9, address=url, timeout=0.05)

        async def prepare(turn: int) -> Coroutine[Any, Any, None]:
            return open_in_vain()

        async def check(turn: int) -> None:
            await asyncio.sleep(0)
            assert_loop_is_clean()

        assert await cancel_everywhere(prepare, check) > 3

    run_clean(work)


def test_one_of_two_opens_that_wait_is_cancelled(path: Path, url: str, service: FakeService) -> None:
    """They share a connection: the other one goes on."""

    async def work() -> None:
        cancelled = asyncio.create_task(AsyncTable.open("x", 9, 100, 9, address=url))
        other = asyncio.create_task(AsyncTable.open("y", 9, 100, 9, address=url))
        await asyncio.sleep(LATER_S / 4)
        cancelled.cancel()
        await (await other).close()
        assert cancelled.cancelled()
        assert_loop_is_clean()

    with starting(service, path):
        asyncio.run(work())
    assert list(service.checkpoints) == [b"y"]


class Interrupted(BaseException):
    """As KeyboardInterrupt, which a test runner would take for itself."""


def test_a_signal_ends_the_wait(url: str) -> None:
    def handle(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, LATER_S)
        with pytest.raises(Interrupted):
            Table("x", 9, 100, 9, address=url, timeout=math.inf)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_signal_whose_handler_returns_does_not_end_the_wait(
    path: Path, url: str, service: FakeService
) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        with starting(service, path):
            assert write_and_read("blocking", url) == b"v"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_fork_during_the_wait_leaves_the_child_without_a_table(
    path: Path, url: str, service: FakeService
) -> None:
    """A signal handler forks: the wait goes on in the parent, and fails in the child."""
    children: list[int] = []
    parent = os.getpid()

    def fork(*_: object) -> None:
        child = os.fork()
        if child:
            children.append(child)

    before = signal.signal(signal.SIGALRM, fork)
    try:
        signal.setitimer(signal.ITIMER_REAL, LATER_S / 2)
        with starting(service, path):
            code = codes.OK
            try:
                read = write_and_read("blocking", url)
            except CheckpointError as error:
                code = error.code
            if os.getpid() != parent:
                os._exit(0 if code == codes.TIMEOUT else 1)
            assert (read, code) == (b"v", codes.OK)
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- later calls, and those that do not wait


def test_a_new_session_waits_as_the_first_one_did(path: Path, url: str, service: FakeService) -> None:
    """After a pause that ended its session, a table's call failed at once if its node was just restarting."""
    with starting(service, path):
        table = Table("x", 9, 100, 9, address=url)
        table["k"] = b"v"
    with service.lock:
        for session_id in list(service.sessions):
            service.end_session(session_id)
    table._connection.session.end("no node was reached for 10 s")
    with starting(service, path):
        assert table["k"] == b"v"
        table.close()


def test_a_forked_child_waits_for_a_node_as_its_parent_would(
    path: Path, url: str, service: FakeService
) -> None:
    with starting(service, path):
        table = Table("x", 9, 100, 9, address=url)
        table["k"] = b"v"
    child = os.fork()
    if not child:
        code = codes.OK
        try:
            table.Read("k", timeout=3 * LATER_S)
        except CheckpointError as error:
            code = error.code
        os._exit(0 if code == codes.UNAVAILABLE else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    table._connection.leave()


def test_what_asks_any_node_fails_at_once_if_there_is_none(url: str) -> None:
    """saCkptInitialize has no time-out, and `describe` says how things are now."""
    for ask in (
        lambda: CheckpointService.initialize(address=url),
        lambda: Connection(url).describe("cluster"),
    ):
        with pytest.raises(SaAisError) as caught:
            ask()
        assert caught.value.code == codes.UNAVAILABLE


@pytest.mark.parametrize(
    "command", ["show x", "get x k", "put x k v", "delete x k", "unlink x", "leader x", "ls", "status"]
)
def test_a_command_that_a_person_waits_for_fails_at_once_if_there_is_no_daemon(
    command: str, url: str
) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--address", url, "--timeout", "1000"])
    assert isinstance(done.exception, CheckpointError | SaAisError), done.output
    assert done.exception[0] == codes.UNAVAILABLE and "ckptd --node-id a" in str(done.exception)


def test_an_open_of_saf_waits_for_a_node_as_it_does_later(path: Path, url: str, service: FakeService) -> None:
    """The node was lost between saCkptInitialize and the first open, which has a time-out."""
    node = FakeNode(service, path=str(path))
    library = CheckpointService.initialize(("B", 1, 1), address=url)
    node.stop()
    with starting(service, path):
        attributes = CheckpointCreationAttributes(SA_CKPT_WR_ALL_REPLICAS, 100, 0, 10, 10, 10)
        library.checkpoint_open("x", CREATE | READ | WRITE, attributes).close()
        library.finalize()


# -- the usual places


@pytest.mark.parametrize("shell", SHELLS)
def test_a_socket_that_another_user_puts_below_tmp_is_not_used(
    shell: str, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a client waits for its daemon, anybody can make the folder in which it looks."""
    folder = Path("/tmp") / f"ckptd-test-{os.getpid()}"
    nodes: list[FakeNode] = []

    def appear() -> None:
        folder.mkdir()
        nodes.append(FakeNode(service, path=f"{folder}/s"))

    monkeypatch.delenv("CKPTD_ADDRESS", raising=False)
    monkeypatch.setattr("ckpt_client.session.address._default_paths", lambda: [f"{folder}/s"])
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert default_addresses() == (Address("unix", f"{folder}/s"),)
    timer = threading.Timer(LATER_S, appear)
    timer.start()
    try:
        error = refused(shell, timeout=math.inf)
    finally:
        timer.join()
        nodes[0].stop()
        (folder / "s").unlink()
        folder.rmdir()
    assert error.code == codes.UNAVAILABLE and "another user" in str(error)
    assert service.sessions == {}
