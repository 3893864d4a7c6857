"""Tables that end while their node is silent, while threads use them, or after a long pause."""

import asyncio
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.client.fake_service import FakeLink, FakeNode, FakeService
from tests.client.fixtures import Start, service, start
from tests.client.test_blocking_connection import ALL

from ckpt_client import AsyncTable, CheckpointError, SaAisError, Table
from ckpt_client.saf import SA_CKPT_CHECKPOINT_READ, CheckpointService
from ckpt_protocol import codes
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import Kind, answer_ok

__all__ = ["service", "start"]

pytestmark = pytest.mark.timeout(60)


def silent(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
    """A node's `misbehave`: it answers nothing."""
    return True


def serves_no_open(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
    """A node's `misbehave`: it lives, and cannot open or end anything."""
    return frame.kind in (Kind.OPEN, Kind.DETACH)


@pytest.mark.parametrize("timeout", [math.inf, 60.0])
def test_closing_a_table_ends_what_another_thread_waits_for(timeout: float, start: Start) -> None:
    """It waited for that call to end: for ever, if the call had no time-out and no node served."""
    node = start()
    table = Table("x", 9, 100, 9, address=node.url, timeout=timeout)
    node.misbehave = silent
    ended: list[int] = []

    def write() -> None:
        with pytest.raises(CheckpointError) as caught:
            table.Write("k", "v")
        ended.append(caught.value.code)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    while Kind.UPDATE not in node.kinds():
        time.sleep(0.01)
    closer = threading.Thread(target=table.close, daemon=True)
    closer.start()
    closer.join(20.0)
    writer.join(20.0)
    assert not closer.is_alive() and not writer.is_alive()
    assert ended == [codes.TIMEOUT], "it may have been done"


def test_tables_that_are_closed_one_after_the_other_wait_for_a_silent_node_once(start: Start) -> None:
    """Ten of them took ten seconds."""
    node = start()
    tables = [Table(f"x{number}", 9, 100, 9, address=node.url) for number in range(10)]
    node.misbehave = silent
    begun_s = time.monotonic()
    for table in tables:
        table.close()
    assert time.monotonic() - begun_s < 5.0


def test_services_that_are_finalized_one_after_the_other_wait_for_a_silent_node_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = start()
    monkeypatch.setenv("CKPTD_ADDRESS", node.url)
    services = [CheckpointService.initialize() for _ in range(5)]
    for number, each in enumerate(services):
        with pytest.raises(SaAisError):
            each.checkpoint_open(f"x{number}", SA_CKPT_CHECKPOINT_READ)
    node.misbehave = silent
    begun_s = time.monotonic()
    for each in services:
        each.finalize()
    assert time.monotonic() - begun_s < 3.0


def test_an_open_that_fails_is_not_late_by_its_goodbye(start: Start) -> None:
    """An open with a time-out of 0.05 s took a second more where the node answered neither of them."""
    node = start()
    node.misbehave = serves_no_open
    begun_s = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        Table("x", 9, 100, 9, address=node.url, timeout=0.05)
    assert time.monotonic() - begun_s < 0.8
    assert caught.value.code in (codes.TIMEOUT, codes.TRY_AGAIN)

    async def work() -> float:
        begun_s = time.monotonic()
        with pytest.raises(CheckpointError):
            await AsyncTable.open("x", 9, 100, 9, address=node.url, timeout=0.05)
        return time.monotonic() - begun_s

    assert asyncio.run(work()) < 0.8


@pytest.mark.parametrize("scheme", ALL)
def test_a_table_that_was_quiet_for_long_says_goodbye_too(
    scheme: str, start: Start, service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked first whether its node was alive, and was gone before the answer."""
    node = start("a", scheme)
    table = Table("x", 9, 100, 9, address=node.url)
    monkeypatch.setattr("ckpt_client.session.node_silence.STALE_NS", 0)
    del table
    while service.sessions:
        time.sleep(0.01)


def test_a_program_that_ends_while_its_threads_call_says_goodbye(start: Start, service: FakeService) -> None:
    node = start("a", "tcp")
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(str(root / folder) for folder in ("protocol", "client"))
    program = (
        "import threading; from ckpt_client import Table; table = Table('x')\n"
        "def work():\n    for _ in range(5): table['k']\n"
        "threading.Thread(target=work, daemon=True).start()"
    )
    with Table("x", 9, 100, 9, address=node.url) as witness:
        witness.Write("k", "v")
        environment = {**os.environ, "PYTHONPATH": path, "CKPTD_ADDRESS": node.url}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
        while witness.status().opens == 2:
            time.sleep(0.01)


def test_a_node_that_answers_what_was_never_asked_is_left(start: Start, service: FakeService) -> None:
    """Its answers counted as a sign of life, so that the call waited for its whole time."""
    first, second = start("a"), start("b")
    stopped = threading.Event()

    def chatter(node: FakeNode, link: FakeLink, frame: Frame) -> bool:
        def talk() -> None:
            while not stopped.wait(0.02):
                link.answer(10**9, answer_ok())

        threading.Thread(target=talk, daemon=True).start()
        return True

    with Table("x", 9, 100, 9, address=[first.url, second.url], follow_active=False) as table:
        table["k"] = "v"
        first.misbehave = chatter
        try:
            assert table["k"] == b"v"
            assert table.node_id == "b"
        finally:
            stopped.set()
