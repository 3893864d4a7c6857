"""Every client leaves a node that is lost, by every transport: `bench.leaving`, as a test.

Here only that it goes on, long before its time-out. Within which time is for `make bench-silence` and for the
slow tests to show.
"""

from collections.abc import Iterator

import pytest
from bench.leaving import FAULTS, STATES, TRANSPORTS, Round, Row, rounds

pytestmark = pytest.mark.extended

GENEROUS_S = 6.0
"""A client that stays ends with its time-out, 10 s."""

QUICK = (("busy", "froze"), ("idle past grace", "cut off"), ("tracking", "cut to node"), ("forked", "froze"))


@pytest.fixture(scope="module")
def round_of() -> Iterator[Round]:
    with rounds() as made:
        yield made


def told(rows: list[Row]) -> str:
    return "\n".join(str(row) for row in rows)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("state", "fault"), QUICK)
def test_every_client_continues(state: str, fault: str, round_of: Round) -> None:
    rows = round_of.run(state, fault)
    assert len(rows) == (3 if state == "forked" else 12)
    assert [row for row in rows if row.error or row.seconds > GENEROUS_S] == [], told(rows)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("state", STATES)
def test_every_client_continues_in_time(state: str, fault: str, round_of: Round) -> None:
    at_once = [(transport,) for transport in TRANSPORTS] if state == "large write" else [TRANSPORTS]
    rows = [row for transports in at_once for row in round_of.run(state, fault, transports=transports)]
    assert [row for row in rows if not row.kept] == [], told(rows)
