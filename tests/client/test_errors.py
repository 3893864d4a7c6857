"""The error tree: codes, classes, Python 2 idioms."""

import copy
import pickle

import pytest

from ckpt_client import errors
from ckpt_client.errors import CheckpointError, CheckpointKeyError, Error, SaAisError, error_of
from ckpt_protocol import codes
from ckpt_protocol.codes import SaAisErrorT


@pytest.mark.parametrize("code", [code for code in SaAisErrorT if code != 1])
def test_every_code_has_a_class_of_its_name(code: SaAisErrorT) -> None:
    error = error_of(code.value, "why", 3)
    expected = "SaAis" + "".join(word.capitalize() for word in code.name.removeprefix("SA_AIS_").split("_"))
    assert type(error).__name__ == expected
    assert getattr(errors, expected) is type(error)
    assert isinstance(error, SaAisError) and isinstance(error, SystemError)
    assert error.args == (code,) and error[0] == error.code == code
    assert (error.index, error.text) == (3, "why")
    assert str(error) == f"{code.name}: why"


def test_a_missing_class_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        errors.SaAisErrNothing  # noqa: B018


def test_a_checkpoint_error_speaks_python_2() -> None:
    error = CheckpointError(error_of(12, "no such section", 0), "cannot read")
    assert error[0] == error.aspErrorCode[0] == error.errCode == error.code == 12
    assert (error.text, error.reasonStr, error.index) == ("cannot read", "cannot read", 0)
    assert str(error) == "cannot read: Return code 'SA_AIS_ERR_NOT_EXIST' "
    assert isinstance(error, Error) and not isinstance(error, SystemError)
    assert str(CheckpointError(SaAisError(999))) == ": Return code 'UNKNOWN_ERROR_CODE' "


def test_a_missing_key_reads_like_a_checkpoint_error() -> None:
    error = CheckpointKeyError(error_of(12), "cannot read")
    assert isinstance(error, KeyError) and isinstance(error, CheckpointError)
    assert str(error) == "cannot read: Return code 'SA_AIS_ERR_NOT_EXIST' "


def test_misc_error_has_its_defaults() -> None:
    error = Error("reason")
    assert (error.reasonStr, error.errCode, error.errContext, str(error)) == ("reason", 0, None, "reason")
    assert Error("reason", 5, "context").errContext == "context"


@pytest.mark.parametrize(
    "error",
    [
        error_of(12, "text", 4),
        CheckpointError(error_of(12, "text", 4), "what"),
        CheckpointKeyError(error_of(12, "text", 4), "what"),
        Error("reason", 1, "context"),
    ],
)
def test_errors_travel_between_processes(error: Exception) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert other.args[0] == error.args[0] or other.args[0].args == error.args[0].args


def test_a_code_that_is_not_known_is_one_of_the_library() -> None:
    """It was an error without a code of the SA Forum's."""
    error = error_of(999, "of a later version", 3)
    assert (error.code, error.index) == (codes.LIBRARY, 3)
    assert "999" in error.text and "of a later version" in error.text
