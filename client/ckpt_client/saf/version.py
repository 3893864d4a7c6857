"""Which version of the interface a program asks for, and which it gets (SAF 3.4.1; R11 to R13). Pure."""

from typing import Any, Final

from ckpt_client.errors import error_of
from ckpt_client.saf.types import Version
from ckpt_protocol import codes

RELEASE: Final = "B"
HIGHEST: Final[Version] = (RELEASE, 2, 2)
"""SAI-AIS-CKPT-B.02.02."""

NEW_MAJOR: Final = 2
"""The changes of B.02 hold for programs that ask for this major version, or a later one."""


def negotiate(version: Any, highest: Version = HIGHEST) -> Version:
    """Return the version that was asked for, if it is supported: release B, any major up to the highest's.

    Raises: SaAisError INVALID_PARAM; VERSION, with the highest supported one in its `version`.
    """
    try:
        release, major, minor = version
        release = release.decode() if isinstance(release, bytes) else release
        wrong = type(release) is not str or len(release) != 1 or type(major) is not int
        wrong = wrong or type(minor) is not int or major < 0 or minor < 0
    except (TypeError, ValueError):  # (A UnicodeError is a ValueError.)
        wrong = True
    if wrong:
        text = f"a version must be a release letter, a major and a minor number, not {version!r}"
        raise error_of(codes.INVALID_PARAM, text)
    if release != highest[0] or major > highest[1]:
        text = f"version {release}.{major}.{minor} is not supported: ask for {show(highest)}"
        error = error_of(codes.SaAisErrorT.SA_AIS_ERR_VERSION, text)
        error.version = highest
        raise error
    return release, major, minor


def is_new(required: Version) -> bool:
    """Return True if the rules of B.02 hold, False for those of B.01 (R13)."""
    return required[1] >= NEW_MAJOR


def show(version: Version) -> str:
    """Return a version as people write it: B.2.2."""
    return f"{version[0]}.{version[1]}.{version[2]}"
