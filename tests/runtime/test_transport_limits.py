"""How full the runtime's limits are: rows for the core, and one line in the log where one is nearly full."""

import asyncio
from pathlib import Path

import pytest
from tests.runtime.conftest import Lines
from tests.runtime.fakes import ping, running

from ckpt_protocol.limits import UNATTACHED_BODY_BYTES_MAX
from ckptd.core.operations.resource_usage import REST_NS
from ckptd.runtime import daemon as daemon_module
from ckptd.runtime.clients.udp_clients import UDP_HANDSHAKES_MAX
from ckptd.runtime.host.descriptors import HANDSHAKES_MAX
from ckptd.runtime.net.datagram_lanes import WAITING_MAX, Lane
from ckptd.runtime.transport_limits import TransportLimits

MIB = 1024 * 1024


async def test_the_core_can_ask_for_every_limit_of_the_runtime(tmp_path: Path) -> None:
    async with (
        running(tmp_path, clients_max=100, client_frames_bytes_max=100 * MIB) as a,
        a.client() as client,
        a.client(greet=False),
    ):
        assert (await client.ping()).a == 1
        while not a.node.transport.limits()["strangers"][0]:
            await asyncio.sleep(0.01)
        assert a.node.transport.limits() == {
            "clients": (1, 100),
            "client_buffer_bytes": (0, 320 * MIB),
            "client_frames_bytes": (0, 100 * MIB),
            "strangers": (1, HANDSHAKES_MAX),
            "udp_strangers": (0, UDP_HANDSHAKES_MAX),
            "datagrams_peers": (0, WAITING_MAX[Lane.PEER]),
            "datagrams_clients": (0, WAITING_MAX[Lane.CLIENT]),
            "datagrams_heartbeats": (0, WAITING_MAX[Lane.HEARTBEAT]),
            "datagrams_strangers": (0, WAITING_MAX[Lane.UNAUTHENTICATED]),
            "peer_buffer_bytes": (0, 256 * MIB),
        }
        client.send(ping(2, bytes(UNATTACHED_BODY_BYTES_MAX))[:-1])
        while not a.node.transport.limits()["client_frames_bytes"][0]:
            await asyncio.sleep(0.01)


async def test_what_is_nearly_full_is_a_line_in_the_log_without_any_request(
    tmp_path: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_module, "TICK_S", 0.01)
    async with running(tmp_path, clients_max=1) as a, a.client() as client:
        assert (await client.ping()).a == 1
        await lines.said("alarm limits (of connections): full: clients 1 of 1")


def test_the_alarm_is_one_line_for_each_limit_and_over_when_nothing_is_full(lines: Lines) -> None:
    rows = {"x": (80, 100), "y": (0, 100)}
    limits = TransportLimits()
    limits.add(lambda: rows)

    def look(now_ns: int, **used: int) -> list[str]:
        before = len(lines.text.splitlines())
        rows.update({name: (most, 100) for name, most in used.items()})
        limits.check(now_ns)
        return [
            line.removeprefix("alarm limits (of connections)") for line in lines.text.splitlines()[before:]
        ]

    assert look(0, x=80) == [": nearly full: x 80 of 100"]
    assert look(1, x=80) == look(2, x=79) == look(3, x=81) == []
    assert look(4, x=100) == [": full: x 100 of 100"]
    assert look(5, x=90) == look(6, x=100) == []
    assert look(7, y=90) == [": full: x 100 of 100; nearly full: y 90 of 100"]
    assert look(8, x=0, y=0) == look(6 + REST_NS) == []
    assert look(7 + REST_NS) == [" has ended"]
    assert look(7 + REST_NS, x=80) == [": nearly full: x 80 of 100"]
