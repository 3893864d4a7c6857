"""The register in etcd: real members, and a server that does what real ones seldom do."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tests.etcd_server import ETCD_MISSING, EtcdCluster
from tests.runtime.fakes import free_port

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed
from ckptd.runtime.errors import ConfigError
from ckptd.runtime.etcd import etcd_register as etcd_module
from ckptd.runtime.etcd.etcd_register import EtcdAccess, EtcdRegister

real = pytest.mark.skipif(bool(ETCD_MISSING), reason=ETCD_MISSING)
PASSWORD = "Tr0ub4dor"
HEADER = {"header": {"revision": "7"}}


@pytest.fixture(scope="module")
def one_member() -> Iterator[EtcdCluster]:
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def shared_members() -> Iterator[EtcdCluster]:
    with EtcdCluster(members=3) as cluster:
        yield cluster


@pytest.fixture
def members(shared_members: EtcdCluster) -> EtcdCluster:
    """Three that run, whatever an earlier test left."""
    for member in range(3):
        if member not in shared_members.running:
            shared_members.start(member)
        shared_members.resume(member)
    shared_members.wait_healthy()
    return shared_members


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """A key that no other test uses."""
    return f"/ckptd/{request.node.name}"


@contextlib.asynccontextmanager
async def register(
    endpoints: tuple[str, ...], key: str = "/view", timeout_s: float = 5.0, **access: object
) -> AsyncIterator[EtcdRegister]:
    register = EtcdRegister(EtcdAccess(endpoints, key, timeout_s, **access))  # type: ignore[arg-type]
    try:
        yield register
    finally:
        await register.close()


def read(number: int = 1) -> AskRegister:
    return AskRegister(number, 0, None)


async def answered(asked: Awaitable[RegisterAnswered | RegisterFailed]) -> RegisterAnswered:
    answer = await asked
    assert isinstance(answer, RegisterAnswered), answer
    return answer


async def failed(asked: Awaitable[RegisterAnswered | RegisterFailed]) -> str:
    answer = await asked
    assert isinstance(answer, RegisterFailed), answer
    return answer.text


# -- one real member


@real
async def test_a_register_that_was_never_written_has_no_value_and_revision_0(
    one_member: EtcdCluster, key: str
) -> None:
    async with register(one_member.endpoints, key) as etcd:
        assert await etcd.ask(read(4)) == RegisterAnswered(4, False, 0, None)


@real
async def test_a_swap_succeeds_only_at_the_revision_that_is_held(one_member: EtcdCluster, key: str) -> None:
    async with register(one_member.endpoints, key) as etcd:
        first = await answered(etcd.ask(AskRegister(1, 0, b"\x00one\xff")))
        assert (first.swapped, first.value) == (True, b"\x00one\xff")
        assert await etcd.ask(read(2)) == RegisterAnswered(2, False, first.revision, first.value)
        assert await etcd.ask(AskRegister(3, 0, b"again")) == RegisterAnswered(
            3, False, first.revision, first.value
        )
        second = await answered(etcd.ask(AskRegister(4, first.revision, b"")))
        assert second.swapped
        assert second.revision > first.revision
        assert await etcd.ask(AskRegister(5, first.revision, b"late")) == RegisterAnswered(
            5, False, second.revision, b""
        )


@real
async def test_a_revision_that_was_never_there_swaps_nothing(one_member: EtcdCluster, key: str) -> None:
    async with register(one_member.endpoints, key) as etcd:
        assert await etcd.ask(AskRegister(1, 5, b"one")) == RegisterAnswered(1, False, 0, None)


@real
async def test_of_rivals_one_swaps_and_the_others_receive_its_value(
    one_member: EtcdCluster, key: str
) -> None:
    async with register(one_member.endpoints, key) as etcd:
        asked = [answered(etcd.ask(AskRegister(number, 0, b"%d" % number))) for number in range(8)]
        answers = await asyncio.gather(*asked)
    (winner,) = [answer for answer in answers if answer.swapped]
    assert {(answer.revision, answer.value) for answer in answers} == {(winner.revision, winner.value)}
    assert winner.value == b"%d" % winner.number


# -- three real members


@real
async def test_a_dead_member_is_passed_over_by_reads_and_swaps(members: EtcdCluster, key: str) -> None:
    members.kill(0)
    members.wait_healthy()  # It may have been etcd's leader.
    async with register(members.endpoints, key) as etcd:
        assert (await answered(etcd.ask(AskRegister(1, 0, b"one")))).swapped
        assert etcd._preferred == 1
        members.kill(1)
        members.start(0)
        members.wait_healthy()
        assert (await answered(etcd.ask(read()))).value == b"one"


@real
async def test_without_a_majority_of_members_nothing_is_known(members: EtcdCluster, key: str) -> None:
    async with register(members.endpoints, key, 0.5) as etcd:
        first = await answered(etcd.ask(AskRegister(1, 0, b"one")))
        members.kill(1)
        members.kill(2)
        assert "no answer within 0.5 s" in await failed(etcd.ask(AskRegister(2, first.revision, b"two")))
        assert members.endpoints[1] in await failed(etcd.ask(read()))
        members.start(1)
        members.wait_healthy()
    # What failed may have been done after all; nothing else may have happened.
    async with register(members.endpoints, key) as etcd:
        assert (await answered(etcd.ask(read()))).value in (b"one", b"two")


@real
async def test_a_swap_that_one_member_may_have_got_is_sent_to_no_other(
    members: EtcdCluster, key: str
) -> None:
    members.pause(0)
    async with register(members.endpoints, key, 0.3) as etcd:
        assert members.endpoints[0] in await failed(etcd.ask(AskRegister(1, 0, b"one")))
        members.kill(0)
        async with register(members.endpoints[1:], key) as other:
            assert await other.ask(read()) == RegisterAnswered(1, False, 0, None)
        # The next question begins with another member.
        assert (await answered(etcd.ask(read()))).value is None


@real
async def test_a_read_continues_at_the_next_member(members: EtcdCluster, key: str) -> None:
    members.pause(0)
    async with register(members.endpoints, key, 1.0) as etcd:
        assert await etcd.ask(read()) == RegisterAnswered(1, False, 0, None)
    members.resume(0)


# -- certificates and passwords


@pytest.fixture(scope="module")
def tls_member() -> Iterator[EtcdCluster]:
    with EtcdCluster(tls=True) as cluster:
        yield cluster


@real
async def test_over_tls_both_sides_prove_who_they_are(tls_member: EtcdCluster, key: str) -> None:
    certificates = tls_member.certificates
    assert certificates is not None
    ours = {"cert_file": certificates.client, "cert_key_file": certificates.keys[certificates.client]}
    async with register(tls_member.endpoints, key, ca_file=certificates.ca, **ours) as etcd:
        assert (await answered(etcd.ask(AskRegister(1, 0, b"one")))).swapped
    async with register(tls_member.endpoints, key, ca_file=certificates.ca) as etcd:
        await failed(etcd.ask(read()))
    async with register(tls_member.endpoints, key, **ours) as etcd:
        assert "certificate verify failed" in await failed(etcd.ask(AskRegister(1, 0, b"two")))


@real
async def test_a_certificate_for_another_host_is_refused(tls_member: EtcdCluster) -> None:
    certificates = tls_member.certificates
    assert certificates is not None
    elsewhere = (tls_member.endpoints[0].replace("127.0.0.1", "localhost"),)
    async with register(elsewhere, ca_file=certificates.ca) as etcd:
        assert "certificate verify failed" in await failed(etcd.ask(read()))


@pytest.mark.parametrize("name", ["ca_file", "cert_file"])
async def test_certificates_that_cannot_be_used_refuse_the_start(tmp_path: Path, name: str) -> None:
    file = tmp_path / "file.pem"
    with pytest.raises(ConfigError, match="cannot be used: No such file"):
        EtcdRegister(EtcdAccess(("https://h:1",), "/view", 1.0, **{name: file}))  # type: ignore[arg-type]
    file.write_text("no certificate")
    with pytest.raises(ConfigError, match="certificates for etcd cannot be used"):
        EtcdRegister(EtcdAccess(("https://h:1",), "/view", 1.0, **{name: file}))  # type: ignore[arg-type]


@real
async def test_a_password_gives_a_token_and_a_token_that_was_forgotten_is_renewed() -> None:
    with EtcdCluster() as cluster:
        cluster.enable_passwords(PASSWORD)
        async with register(cluster.endpoints, user="root", password=PASSWORD) as etcd:
            first = await answered(etcd.ask(AskRegister(1, 0, b"one")))
            assert first.swapped
            token = etcd._token
            cluster.forget_tokens(PASSWORD)
            assert (await answered(etcd.ask(AskRegister(2, first.revision, b"two")))).swapped
            assert etcd._token != token
        async with register(cluster.endpoints, user="root", password="wrong") as etcd:
            text = await failed(etcd.ask(read()))
            assert "authentication failed" in text
            assert "wrong" not in text
        async with register(cluster.endpoints) as etcd:
            assert "user name is empty" in await failed(etcd.ask(read()))


async def test_a_password_shows_nowhere() -> None:
    assert PASSWORD not in repr(EtcdAccess(("http://h:1",), "/view", 1.0, "root", PASSWORD))


# -- a server that does what real ones seldom do

Reply = Callable[[str, dict[str, str]], tuple[int, object]]


class FakeMember:
    """Answers each POST with what `reply` says: a status and JSON, bytes as they are, or None for silence."""

    def __init__(self, *replies: tuple[int, object] | None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._replies = list(replies)
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:] if line)
                await reader.readexactly(int(headers["content-length"]))
                self.asked.append((head.split()[1], headers.get("authorization", "")))
                reply = self._replies.pop(0)
                if reply is None:
                    continue
                status, content = reply
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)


@contextlib.asynccontextmanager
async def serving(*members: FakeMember) -> AsyncIterator[tuple[str, ...]]:
    servers = [await asyncio.start_server(member.serve, "127.0.0.1", 0) for member in members]
    try:
        yield tuple(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers)
    finally:
        for server in servers:
            server.close()


UNKNOWN: list[tuple[int, object] | None] = [
    None,
    (503, {"error": "etcdserver: request timed out", "code": 14}),
    (504, b"<html>gateway</html>"),
    (500, b""),
    (200, b"{"),
    (200, b"[" * 100_000),
    (200, []),
    (200, {}),
    (200, {"header": {"revision": "many"}}),
    (200, {"succeeded": True}),
    (200, b'{"x": "' + b"x" * etcd_module.ANSWER_BYTES_MAX + b'"}'),
    (302, b""),
    (404, b"no such page"),
]


@pytest.mark.parametrize("reply", UNKNOWN, ids=lambda reply: str(reply)[:40])
async def test_a_swap_without_a_clear_answer_failed_and_went_to_no_other_member(
    reply: tuple[int, object] | None,
) -> None:
    first, second = FakeMember(reply), FakeMember((200, {**HEADER, "succeeded": True}))
    async with serving(first, second) as endpoints, register(endpoints, timeout_s=1.0) as etcd:
        assert endpoints[0] in await failed(etcd.ask(AskRegister(1, 0, b"one")))
        assert len(first.asked) == 1
        assert second.asked == []


@pytest.mark.parametrize("reply", UNKNOWN, ids=lambda reply: str(reply)[:40])
async def test_a_read_without_a_clear_answer_goes_to_the_next_member(
    reply: tuple[int, object] | None,
) -> None:
    first, second = FakeMember(reply), FakeMember((200, HEADER), (200, HEADER))
    async with serving(first, second) as endpoints, register(endpoints, timeout_s=0.3) as etcd:
        assert await etcd.ask(read()) == RegisterAnswered(1, False, 0, None)
        # The one that answered is asked first from now on.
        assert await etcd.ask(read()) == RegisterAnswered(1, False, 0, None)
        assert (len(first.asked), len(second.asked)) == (1, 2)


@pytest.mark.parametrize(
    "held",
    [
        {},
        {"responses": []},
        {"responses": [{"response_range": {"kvs": [{}]}}]},
        {"responses": [{"response_range": {"kvs": [{"mod_revision": "3", "value": "%"}]}}]},
        {"responses": [{"response_range": []}]},
    ],
    ids=str,
)
async def test_a_refused_swap_that_does_not_say_what_is_held_failed(held: dict[str, object]) -> None:
    member = FakeMember((200, {**HEADER, **held}))
    async with serving(member) as endpoints, register(endpoints) as etcd:
        assert "an unexpected shape" in await failed(etcd.ask(AskRegister(1, 0, b"one")))


async def test_an_answer_that_trickles_is_cut_off_at_the_limit() -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)

    server = await asyncio.start_server(trickle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with register((url,), timeout_s=0.2) as etcd:
        assert "no answer within 0.2 s" in await failed(etcd.ask(read()))
    server.close()


async def test_a_connection_that_ends_within_the_answer_is_an_unknown_outcome() -> None:
    async def end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(end, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    other = FakeMember((200, {**HEADER, "succeeded": True}))
    async with serving(other) as endpoints, register((url, *endpoints)) as etcd:
        assert url in await failed(etcd.ask(AskRegister(1, 0, b"one")))
    assert other.asked == []
    server.close()


async def test_an_error_names_every_address_that_was_not_reached() -> None:
    endpoints = tuple(f"http://127.0.0.1:{free_port()}" for _ in range(2))
    async with register(endpoints) as etcd:
        text = await failed(etcd.ask(AskRegister(1, 0, b"one")))
        assert all(endpoint in text for endpoint in endpoints)


EXPIRED = (401, {"error": "etcdserver: invalid auth token", "code": 16})


async def test_a_token_that_expired_is_renewed_once_for_a_question() -> None:
    member = FakeMember(
        (200, {**HEADER, "token": "t1"}),
        (200, HEADER),
        EXPIRED,
        (200, {**HEADER, "token": "t2"}),
        (200, {**HEADER, "succeeded": True}),
        EXPIRED,
        (200, {**HEADER, "token": "t3"}),
        EXPIRED,
    )
    async with serving(member) as endpoints, register(endpoints, user="u", password=PASSWORD) as etcd:
        await answered(etcd.ask(read()))
        assert (await answered(etcd.ask(AskRegister(2, 0, b"one")))).swapped
        assert "invalid auth token" in await failed(etcd.ask(AskRegister(3, 0, b"one")))
    assert member.asked == [
        ("/v3/auth/authenticate", ""),
        ("/v3/kv/range", "t1"),
        ("/v3/kv/txn", "t1"),
        ("/v3/auth/authenticate", ""),
        ("/v3/kv/txn", "t2"),
        ("/v3/kv/txn", "t2"),
        ("/v3/auth/authenticate", ""),
        ("/v3/kv/txn", "t3"),
    ]


async def test_a_swap_whose_token_could_not_be_had_goes_to_the_next_member() -> None:
    """It was not sent, so that nothing can be done twice."""
    first = FakeMember((503, {"error": "etcdserver: no leader"}))
    second = FakeMember((200, {**HEADER, "token": "t"}), (200, {**HEADER, "succeeded": True}))
    async with serving(first, second) as endpoints, register(endpoints, user="u", password=PASSWORD) as etcd:
        assert (await answered(etcd.ask(AskRegister(1, 0, b"one")))).swapped
