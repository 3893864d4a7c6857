"""The daemon's clock goes on while its host sleeps: a lease must not outlive a closed lid."""

import time

import pytest

from ckptd.runtime import clock, daemon, driver
from ckptd.runtime.peers import peer_connector

HOUR_NS = 3600 * 10**9


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="CLOCK_MONOTONIC counts sleep here")
def test_the_clock_counts_suspended_time_on_linux() -> None:
    """By its name, too: on a host that never slept both of Linux's clocks show the same."""
    assert clock.now_ns.args == (time.CLOCK_BOOTTIME,)
    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    shown_ns = clock.now_ns()
    assert before_ns <= shown_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_what_gives_the_core_its_time_reads_that_clock_and_no_other() -> None:
    assert [module.now_ns for module in (daemon, driver, peer_connector)] == [clock.now_ns] * 3  # type: ignore[attr-defined]


def test_a_step_of_the_wall_clock_is_noticed_once_and_a_sleep_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = {"wall": 10**18, "core": 10**9}
    monkeypatch.setattr(time, "time_ns", lambda: shown["wall"])
    monkeypatch.setattr(clock, "now_ns", lambda: shown["core"])
    wall_clock = clock.WallClock()
    shown["wall"] += HOUR_NS
    shown["core"] += HOUR_NS
    assert not wall_clock.moved()
    shown["wall"] -= clock.WALL_STEP_NS + 1
    assert wall_clock.moved()
    assert wall_clock.offset_ns == shown["wall"] - shown["core"]
    assert not wall_clock.moved()
