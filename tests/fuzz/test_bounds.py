"""Frames at and beyond the bounds of the table, from everybody to a node in every state: none raises."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.fuzzer import Fuzzer
from tests.fuzz.places import PLACES
from tests.fuzz.strategies import frames
from tests.protocol.representative import kind_numbers

from ckpt_protocol.bounds_by_kind import BOUNDS

NAMES = {number: name for name, number in kind_numbers().items()}
EXAMPLES = 10


@pytest.mark.parametrize("kind", BOUNDS, ids=NAMES.get)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_frame_of_this_kind_raises(kind: int, data: Any) -> None:
    name = data.draw(st.sampled_from(list(PLACES)), label="place")
    place = PLACES[name]()
    sender = data.draw(st.sampled_from(place.senders), label="sender")
    fuzzer = Fuzzer({}, meter=False)
    link = fuzzer.link(place, sender)
    place.cluster.may_have_two_actives = True
    for frame in data.draw(st.lists(frames(kind), min_size=1, max_size=4), label="frames"):
        aimed = fuzzer.aim(data.draw(st.randoms(use_true_random=False)), place, sender, frame)
        if not fuzzer.send(place, name, sender, link, aimed):
            break
        place.cluster.run(0.2)
    assert fuzzer.report.contained == 0
