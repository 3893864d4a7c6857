"""Ports and the unix socket: taken ones are refused, stale ones replaced."""

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest
from tests.runtime.fakes import RawClient, running

from ckptd.runtime.config.addresses import HostPort
from ckptd.runtime.errors import StartError
from ckptd.runtime.net.listening import UnixSocket, bind_port

LOOPBACK = HostPort("127.0.0.1", 0)


async def test_tcp_and_udp_get_the_same_port() -> None:
    stream, datagrams = bind_port(LOOPBACK)
    assert stream.getsockname() == datagrams.getsockname()
    stream.close()
    datagrams.close()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
async def test_a_taken_port_is_refused(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            StartError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"
        ):
            bind_port(HostPort("127.0.0.1", port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_ours_is_refused(host: str) -> None:
    with pytest.raises(StartError, match="cannot listen on"):
        bind_port(HostPort(host, 0))


async def test_ipv6_works_where_the_host_has_it() -> None:
    try:
        stream, datagrams = bind_port(HostPort("::1", 0))
    except StartError:
        pytest.skip("this host has no IPv6")
    assert stream.family == socket.AF_INET6
    assert datagrams.getsockname() == stream.getsockname()
    stream.close()
    datagrams.close()


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_unix_socket_has_its_mode_from_the_start(tmp_path: Path, mode: int) -> None:
    unix = UnixSocket(tmp_path / "run" / "s", mode)
    assert stat.S_IMODE(unix.path.stat().st_mode) == mode
    unix.socket.close()
    unix.close()
    assert not unix.path.exists()


def test_a_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    unix = UnixSocket(tmp_path / "s", 0o600)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    unix.socket.close()
    unix.close()


def test_a_unix_socket_that_another_process_listens_on_is_refused(tmp_path: Path) -> None:
    first = UnixSocket(tmp_path / "s", 0o600)
    with pytest.raises(StartError, match="another ckptd listens on unix socket"):
        UnixSocket(tmp_path / "s", 0o600)
    first.socket.close()
    first.close()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(str(tmp_path / "s"))
        stranger.listen()
        with pytest.raises(StartError, match="another process listens on unix socket"):
            UnixSocket(tmp_path / "s", 0o600)


def test_a_path_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(StartError, match="is not a socket"):
        UnixSocket(tmp_path / "s", 0o600)
    assert (tmp_path / "s").read_text() == "precious"


def test_a_path_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="is longer than"):
        UnixSocket(tmp_path / ("x" * 120), 0o600)


def test_a_directory_that_every_user_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StartError, match="every user may write"):
        UnixSocket(tmp_path / "s", 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_users_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """/tmp/ckptd-0 could be a link to /etc, and the daemon made its socket and its lock there."""
    (tmp_path / "ours").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "ours")
    os.chown(tmp_path / "run", 54_321, -1, follow_symlinks=False)
    with pytest.raises(StartError, match="belongs to another user"):
        UnixSocket(tmp_path / "run" / "s", 0o600)
    assert not any((tmp_path / "ours").iterdir())


async def test_clients_come_over_the_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with running(tmp_path, socket=str(path)) as a:
        assert a.daemon.addresses[2] == f"unix://{path}"
        client = RawClient(*await asyncio.open_unix_connection(str(path)))
        await client.greet(a.identity)
        assert (await client.ping(3)).a == 3
        client.writer.close()
    assert not path.exists()


async def test_a_second_daemon_continues_without_the_default_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("ckptd.runtime.config.model.default_socket_path", lambda: tmp_path / "s")
    async with running(tmp_path, socket="") as a, running(tmp_path, node_id="b", socket="") as b:
        assert len(a.daemon.addresses) == 3
        assert len(b.daemon.addresses) == 2
        assert "not listening on a unix socket: another ckptd listens" in caplog.text
        with pytest.raises(StartError, match="another ckptd listens"):
            async with running(tmp_path, node_id="c", socket=str(tmp_path / "s")):
                raise AssertionError("it started")
