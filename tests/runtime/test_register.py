"""The register in a daemon: made from its settings, asked for the core, given up at the end."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.runtime.fakes import free_port, running

from ckptd.core.events import AskRegister, RegisterAnswered, RegisterFailed, WallClockRead
from ckptd.runtime.config.model import Config
from ckptd.runtime.errors import ConfigError
from ckptd.runtime.etcd.make_register import make_register


async def test_a_request_without_an_answer_is_reported_to_the_core_and_counted(tmp_path: Path) -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    async with running(tmp_path, arbiter="etcd", etcd_endpoints=endpoint) as a:
        a.node.on[WallClockRead] = lambda event: [AskRegister(7, 0, None)]
        a.driver.handle(WallClockRead(0))
        answer = await a.node.told(RegisterFailed)
        assert answer.number == 7
        assert endpoint in answer.text
        assert a.node.transport.counters()["register_failures"] == 1


async def test_a_question_under_way_ends_with_the_daemon(tmp_path: Path) -> None:
    connected = asyncio.Event()
    server = await asyncio.start_server(lambda reader, writer: connected.set(), "127.0.0.1", 0)
    endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with running(tmp_path, arbiter="etcd", etcd_endpoints=endpoint, etcd_timeout_ms=3_600_000) as a:
        a.node.on[WallClockRead] = lambda event: [AskRegister(7, 0, b"view")]
        a.driver.handle(WallClockRead(0))
        await connected.wait()
    assert not [e for e in a.node.events if isinstance(e, RegisterFailed | RegisterAnswered)]
    server.close()


def test_without_its_library_etcd_refuses_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "ckptd.runtime.etcd.etcd_register", raising=False)
    with pytest.raises(ConfigError, match=r"arbiter etcd needs httpx: pip install 'ckptd\[etcd\]'"):
        make_register(Config(node_id="a", arbiter="etcd", etcd_endpoints="http://h:1"))


def test_other_arbiters_need_no_register_and_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    assert make_register(Config(node_id="a")) is None
