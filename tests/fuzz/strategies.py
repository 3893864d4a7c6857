"""Frames drawn from the table of bounds: within each kind's bounds, at them, and just beyond."""

from typing import Any, Final

import msgpack
from hypothesis import strategies as st
from tests.protocol.representative import REPRESENTATIVES

from ckpt_protocol.bounds_by_kind import BOUNDS, Bounds
from ckpt_protocol.framing import Frame
from ckpt_protocol.messages import FORWARD_REFUSED_ROUTE, FORWARD_ROUTE, REPLICATE_ROUTE, Kind
from ckptd.sim.faults.spoiling import NUMBERS, nested

AT_BOUNDS_BYTES_MAX: Final = 300_000
"""The largest size of a body that fills a bound: a longer one shows nothing new, and takes long."""

ROUTES: Final = {
    Kind.FORWARD: FORWARD_ROUTE.size,
    Kind.FORWARD_REFUSED: FORWARD_REFUSED_ROUTE.size,
    Kind.REPLICATE: REPLICATE_ROUTE.size,
}

_leaves = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.sampled_from(NUMBERS)
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=9)
    | st.text(max_size=4)
)
_trees = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.integers(0, 9), inner, max_size=3),
    max_leaves=15,
)
_numbers = st.sampled_from(NUMBERS) | st.integers(0, 20)


def frames(kind: int) -> st.SearchStrategy[Frame]:
    """Generate frames of one kind."""
    return st.builds(Frame, st.just(kind), _numbers, _numbers, _numbers, _bodies(kind, BOUNDS[kind]))


def _bodies(kind: int, bounds: Bounds) -> st.SearchStrategy[bytes]:
    """Generate trees of any shape, representative bodies with changed fields, bodies that fill a bound."""
    told = [each.body for each in REPRESENTATIVES if getattr(Kind, each.kind) == kind and each.body]
    routes = st.binary(min_size=ROUTES.get(kind, 0), max_size=ROUTES.get(kind, 0))
    choices = [
        st.tuples(routes, _trees.map(_pack)).map(b"".join),
        st.integers(0, bounds.depth_max + 4).map(nested),
        st.sampled_from(_filled(bounds)),
        st.binary(max_size=80),
    ]
    if told:
        choices.append(st.tuples(st.sampled_from(told), st.randoms(use_true_random=False)).flatmap(_changed))
    return st.one_of(choices)


def _filled(bounds: Bounds) -> list[bytes]:
    """Generate bodies with as many objects, and as many bytes, as allowed, and with one more."""
    filled = [b"", _pack([])]
    for more in (-1, 0, 1):
        count, size = bounds.objects_max - 1 + more, bounds.body_bytes_max + more
        if 0 <= count <= AT_BOUNDS_BYTES_MAX:
            filled.append(_pack([None] * count))
        if 5 <= size <= AT_BOUNDS_BYTES_MAX:
            filled.append(_pack([b"", bytes(max(0, size - 6))])[:size].ljust(size, b"\xc0"))
    return filled


def _changed(drawn: tuple[bytes, Any]) -> st.SearchStrategy[bytes]:
    """Generate a representative body with one of its fields replaced."""
    body, random = drawn
    for route in (0, *ROUTES.values()):
        try:
            content = msgpack.unpackb(body[route:], strict_map_key=False)
        except (ValueError, msgpack.UnpackException):
            continue
        if type(content) is list and content:
            place = random.randrange(len(content))
            return _trees.map(
                lambda tree: body[:route] + _pack([*content[:place], tree, *content[place + 1 :]])  # noqa: B023
            )
    return st.just(body)


def _pack(content: Any) -> bytes:
    packed: bytes = msgpack.packb(content, use_bin_type=True)
    return packed
