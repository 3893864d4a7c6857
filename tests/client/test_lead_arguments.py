"""Bad input to `lead` and `resign`: a clear error that names the argument, and no request."""

import math
import sys
from typing import Any

import pytest
from tests.client.fixtures import Start, service, start

from ckpt_client import AsyncTable, CheckpointError, Table
from ckpt_client.leadership.lead_arguments import default_name, lead_arguments, own_host, program_name
from ckpt_protocol import codes

__all__ = ["service", "start"]


async def on_lost() -> None:
    """Would never be awaited."""


BAD = [
    ("ttl", 0),
    ("ttl", 0.099),
    ("ttl", 3600.1),
    ("ttl", math.nan),
    ("ttl", math.inf),
    ("ttl", "5"),
    ("ttl", 10**400),
    ("ttl", None),
    ("ttl", True),
    ("watchdog", 0),
    ("watchdog", -1),
    ("watchdog", math.nan),
    ("watchdog", math.inf),
    ("watchdog", "5"),
    ("watchdog", 1e300),
    ("name", ""),
    ("name", "é" * 33),
    ("name", b"x"),
    ("name", "\ud800"),
    ("exclusive", 1),
    ("allow_loss_on_failover", None),
    ("on_lost", "f"),
    ("on_lost", on_lost),
    ("timeout", 0),
    ("timeout", -1),
    ("timeout", math.nan),
    ("timeout", "1"),
]
NAMES = {"timeout": "time-out"}


@pytest.mark.parametrize(("argument", "value"), BAD)
async def test_a_wrong_argument_is_refused_before_anything_is_sent(
    start: Start, argument: str, value: Any
) -> None:
    node = start()
    wanted: dict[str, Any] = {argument: value}
    with Table("t", 10, 100, 32, address=node.url) as table:
        count = len(node.received)
        with pytest.raises(CheckpointError, match=NAMES.get(argument, argument)) as refused:
            table.lead(**wanted)
        assert refused.value.code == codes.INVALID_PARAM
        assert len(node.received) == count
        table["k"] = "1"
    async with await AsyncTable.open("t", address=node.url) as other:
        with pytest.raises(CheckpointError, match=NAMES.get(argument, argument)) as refused:
            await other.lead(**wanted)
        assert refused.value.code == codes.INVALID_PARAM
        await other.write("k", "1")


async def test_a_read_only_table_and_a_closed_one_do_not_lead(start: Start) -> None:
    node = start()
    with Table("t", 10, 100, 32, address=node.url) as table:
        with (
            Table("t", read_only=True, address=node.url) as reader,
            pytest.raises(CheckpointError, match="read-only") as refused,
        ):
            reader.lead()
        assert refused.value.code == codes.ACCESS
        async with await AsyncTable.open("t", read_only=True, address=node.url) as other:
            with pytest.raises(CheckpointError, match="read-only"):
                await other.lead()
        with pytest.raises(CheckpointError, match="closed") as refused:
            await other.lead()
        assert refused.value.code == codes.BAD_HANDLE
    with pytest.raises(CheckpointError, match="closed") as refused:
        table.lead()
    assert refused.value.code == codes.BAD_HANDLE
    assert len(node.service.checkpoints[b"t"].sections) == 0


def test_the_limits_themselves_are_accepted() -> None:
    assert lead_arguments(ttl=0.1).ttl_ns == 100_000_000
    assert lead_arguments(ttl=3600).ttl_ns == 3_600_000_000_000
    assert lead_arguments(watchdog=0.5).watchdog_ns == 500_000_000
    assert program_name("x" * 64, "name") == "x" * 64


def test_the_default_name_is_the_scripts_and_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/orders.py", "x"])
    assert default_name() == "orders.py"
    monkeypatch.setattr(sys, "argv", ["/" + "é" * 60])
    assert default_name() == "é" * 32
    monkeypatch.setattr(sys, "argv", [])
    assert default_name()
    assert own_host()
