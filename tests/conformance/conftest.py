"""The worlds in which scenarios run, and the table of their results."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.daemon_world import DaemonWorld
from tests.conformance.marks import USUAL, VIRTUAL, numbers_of
from tests.conformance.table import Outcomes
from tests.conformance.virtual_world import VirtualWorld
from tests.conformance.world import World

from ckptd.testing import LocalCluster

_outcomes = pytest.StashKey[Outcomes]()
OPTION = "--conformance-table"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, metavar="PATH", default=None, help="where to write the table of requirements")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_outcomes] = Outcomes()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "world_kind" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("worlds")
        kinds = USUAL if mark is None else mark.args
        metafunc.parametrize("world_kind", kinds, indirect=True, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark runs with real daemons of what runs in virtual time, too: one as extended, others as slow."""
    kinds: dict[str, list[pytest.Item]] = defaultdict(list)
    virtual = set()
    for item in items:
        kind = getattr(item, "callspec", None) and item.callspec.params.get("world_kind")
        scenario = item.nodeid.partition("[")[0]
        if kind == VIRTUAL:
            virtual.add(scenario)
        elif kind:
            kinds[scenario].append(item)
    for scenario in virtual:
        for place, item in enumerate(kinds[scenario]):
            item.add_marker(pytest.mark.slow if place else pytest.mark.extended)


@pytest.fixture(scope="session")
def world_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="package")
def daemons() -> Iterator[LocalCluster]:
    with LocalCluster(3, name="conformance") as cluster:
        yield cluster


@pytest.fixture
def world(
    world_kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Yield three nodes that serve."""
    made: World
    if world_kind == VIRTUAL:
        mark = request.node.get_closest_marker("settings")
        made = VirtualWorld(monkeypatch, **(mark.kwargs if mark is not None else {}))
    else:
        made = DaemonWorld(request.getfixturevalue("daemons"), world_kind.removeprefix("daemons-"))
    try:
        yield made
        if isinstance(made, VirtualWorld):
            made.check()
    finally:
        made.close()


# -- the table


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" or report.failed:
        callspec = getattr(item, "callspec", None)
        kind = callspec.params.get("world_kind", "") if callspec is not None else ""
        mark = item.get_closest_marker("worlds")
        why = mark.kwargs.get("why", "") if mark is not None else ""
        item.config.stash[_outcomes].add(numbers_of(item), kind, report.outcome, why)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption(OPTION, default=None)
    if path:
        Path(path).write_text(session.config.stash[_outcomes].table())
