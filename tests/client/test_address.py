"""Addresses: what parses, what is refused, and which one is meant when none is given."""

import os
from pathlib import Path
from typing import Any

import pytest

from ckpt_client import SaAisError
from ckpt_client.session.address import (
    UNIX_PATH_BYTES_MAX,
    Address,
    choose_addresses,
    choose_key,
    default_address,
    default_addresses,
    parse_address,
    parse_addresses,
)
from ckpt_protocol import codes


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("unix:///run/ckptd/ckptd.sock", Address("unix", "/run/ckptd/ckptd.sock")),
        ("tcp://127.0.0.1:7301", Address("tcp", "127.0.0.1", 7301)),
        ("udp://node-a.example:1", Address("udp", "node-a.example", 1)),
        ("tcp://[::1]:65535", Address("tcp", "::1", 65535)),
        ("  tcp://a:1 ", Address("tcp", "a", 1)),
    ],
)
def test_good_addresses(url: str, address: Address) -> None:
    assert parse_address(url) == address
    assert str(address) == url.strip()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a:1",
        "http://a:1",
        "TCP//a:1",
        "tcp://",
        "tcp://a",
        "tcp://a:",
        "tcp://:1",
        "tcp://a:0",
        "tcp://a:65536",
        "tcp://a:-1",
        "tcp://a:1x",
        "tcp://a:¹",
        "unix://relative.sock",
        "unix://",
        "unix:///a\0b",
        "unix:///" + "x" * UNIX_PATH_BYTES_MAX,
    ],
)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(SaAisError) as caught:
        parse_address(url)
    assert caught.value.code == codes.INVALID_PARAM


def test_several_addresses_keep_their_order_and_come_once() -> None:
    a, b, c = (Address("tcp", name, 1) for name in "abc")
    assert parse_addresses("tcp://b:1, tcp://a:1,tcp://b:1,") == (b, a)
    assert parse_addresses(["tcp://c:1", "tcp://a:1,tcp://b:1"]) == (c, a, b)


@pytest.mark.parametrize("urls", ["", " , ", [], [""], [5], [None], ["tcp://a:1", "x"]])
def test_lists_without_an_address_are_refused(urls: Any) -> None:
    with pytest.raises(SaAisError) as caught:
        parse_addresses(urls)
    assert caught.value.code == codes.INVALID_PARAM


def test_more_addresses_than_there_can_be_are_refused() -> None:
    with pytest.raises(SaAisError):
        parse_addresses([f"tcp://a:{port}" for port in range(1, 300)])


def test_the_argument_goes_before_the_variable_and_that_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("CKPTD_ADDRESS", "tcp://b:2,udp://c:3")
    assert choose_addresses("tcp://a:1") == (Address("tcp", "a", 1),)
    assert choose_addresses(None) == (Address("tcp", "b", 2), Address("udp", "c", 3))
    monkeypatch.setenv("CKPTD_ADDRESS", "")
    assert choose_addresses(None) == default_addresses()


def test_the_default_is_the_socket_that_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ckpt_client.session.address._SYSTEM_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / "ckptd" / "ckptd.sock"
    assert default_address() == f"unix://{tmp_path}/none.sock"
    assert [address.host for address in default_addresses()] == [
        str(tmp_path / "none.sock"),
        str(path),
        f"/tmp/ckptd-{os.getuid()}/ckptd.sock",
    ]
    path.parent.mkdir()
    path.touch()
    monkeypatch.setattr("ckpt_client.session.address._is_ours", lambda place: place == str(path))
    assert default_address() == f"unix://{path}"


def test_a_socket_below_tmp_in_a_folder_of_another_user_is_not_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anyone can make /tmp/ckptd-1000, also as a link to a folder of ours: nothing is told to whoever did."""
    stranger = os.stat_result([0o40755, 0, 0, 1, os.getuid() + 1, 0, 0, 0, 0, 0])
    monkeypatch.setattr(
        "ckpt_client.session.address.os.path.exists", lambda path: path.startswith("/tmp/ckptd-")
    )
    monkeypatch.setattr("ckpt_client.session.address.os.lstat", lambda path: stranger)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    assert default_address() == "unix:///run/ckptd/ckptd.sock"


def test_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CKPTD_KEY", raising=False)
    assert choose_key(None) == b""
    monkeypatch.setenv("CKPTD_KEY", "é")
    assert choose_key(None) == "é".encode()
    assert choose_key("") == b""
    assert choose_key("x") == choose_key(b"x") == b"x"
