"""A parser may be wrong, and must never be more than that."""

import pytest

from ckpt_protocol.errors import FrameError, ParseFailed, RequestError, parser


@parser
def parse(what: object) -> object:
    """Return what it is given, or raise it."""
    if isinstance(what, Exception):
        raise what
    return what


def test_what_was_parsed_is_returned() -> None:
    assert parse(5) == 5
    assert parse(what=None) is None
    assert (parse.__name__, parse.__doc__) == ("parse", "Return what it is given, or raise it.")


@pytest.mark.parametrize("error", [FrameError("garbage"), RequestError(7, "wrong")], ids=repr)
def test_the_two_errors_of_parsers_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        parse(error)
    assert caught.value is error


@pytest.mark.parametrize("error", [KeyError("k"), OverflowError(), RecursionError(), MemoryError()], ids=repr)
def test_anything_else_is_garbage_that_says_that_it_is_our_own_bug(error: Exception) -> None:
    with pytest.raises(FrameError) as caught:
        parse(error)
    assert isinstance(caught.value, ParseFailed)
    assert caught.value.raised is error
    assert str(caught.value) == f"our own parser raised {type(error).__name__}"


def test_an_error_that_is_not_the_peers_passes_through() -> None:
    @parser
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
