"""A failing test explains itself on one screen: below its traceback stands the end of its cluster's story."""

from collections.abc import Iterator
from types import TracebackType

import pytest

# Helpers that assert show the values, as tests do.
pytest.register_assert_rewrite("tests.client", "tests.conformance", "tests.core", "tests.e2e", "tests.sim")

LINES_MAX = 15


def story_of(trace: TracebackType | None) -> list[str]:
    """The lines of the first cluster that a frame of the traceback knows, or none."""
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            tell = getattr(type(value), "story", None)
            if tell is not None:
                return str(tell(value)).splitlines()
        trace = trace.tb_next
    return []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    except Exception as error:
        lines = story_of(error.__traceback__)
        if lines:
            error.add_note("\n".join(["its cluster, at the end:", *lines[-LINES_MAX:]]))
        raise
