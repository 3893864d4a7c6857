"""A short run of the fuzzer in every test run; `make fuzz MINUTES=10` is the long one."""

import tracemalloc
from collections.abc import Iterator

import pytest
from tests.fuzz.corpus import Corpus, nothing_missing, record
from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.places import PLACES

METERED_SEEDS = 10


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return record()


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_every_kind_of_frame_is_in_the_corpus(corpus: Corpus) -> None:
    assert nothing_missing(corpus) == []


@pytest.mark.parametrize(("first", "last"), [(1, 70), pytest.param(71, 200, marks=pytest.mark.extended)])
def test_spoiled_frames_break_nothing_in_any_state(first: int, last: int, corpus: Corpus) -> None:
    fuzzer = Fuzzer(corpus, meter=False)
    for seed in range(first, last + 1):
        fuzzer.run_seed(seed)
    assert not fuzzer.report.findings, "\n".join(map(str, fuzzer.report.findings))
    assert {place for place, _, _ in fuzzer.report.messages} == set(PLACES)
    assert fuzzer.report.closed > (last - first) // 10


def test_spoiled_frames_take_no_more_memory_than_their_size_allows(corpus: Corpus, traced: None) -> None:
    fuzzer = Fuzzer(corpus)
    for seed in range(1, METERED_SEEDS + 1):
        fuzzer.run_seed(seed)
    assert not fuzzer.report.findings, "\n".join(map(str, fuzzer.report.findings))
    assert fuzzer.report.peak_bytes[0] > 0


def test_a_seed_sends_the_same_messages_again(corpus: Corpus) -> None:
    reports = [Fuzzer(corpus, meter=False) for _ in range(2)]
    for fuzzer in reports:
        fuzzer.run_seed(11)
    assert reports[0].report.messages == reports[1].report.messages
