"""The SA Forum's structures as ASP's module `asp` offers them: fields that a program sets and reads. Pure.

The functions below translate them to the values of `ckpt_client.saf`.
"""

from collections.abc import Callable
from typing import Any, Final

from ckpt_client.errors import error_of
from ckpt_protocol import codes, constants


class _Structure:
    """A structure of the interface. Its fields are attributes, all optional and changeable."""

    _fields: tuple[tuple[str, Any], ...] = ()

    def __init__(self, *values: Any, **named: Any) -> None:
        names = [name for name, _ in self._fields]
        if len(values) > len(names) or not set(named) <= set(names):
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(names)}")
        for name, default in self._fields:
            setattr(self, name, default() if isinstance(default, type) else default)
        for name, value in (*zip(names, values, strict=False), *named.items()):
            setattr(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name, _ in self._fields)
        return f"{type(self).__name__}({fields})"


class SaVersionT(_Structure):
    """A version of the interface, such as B.2.2. The release code is a letter, or its number as in C."""

    _fields = (("releaseCode", "B"), ("majorVersion", 0), ("minorVersion", 0))
    releaseCode: str | int
    majorVersion: int
    minorVersion: int


class SaCkptCheckpointCreationAttributesT(_Structure):
    """How a checkpoint is created. Sizes in bytes, retentionDuration in ns."""

    _fields = (
        ("creationFlags", 0),
        ("checkpointSize", 0),
        ("retentionDuration", 0),
        ("maxSections", 0),
        ("maxSectionSize", 0),
        ("maxSectionIdSize", 0),
    )
    creationFlags: int
    checkpointSize: int
    retentionDuration: int
    maxSections: int
    maxSectionSize: int
    maxSectionIdSize: int


class SaCkptCheckpointDescriptorT(_Structure):
    """A checkpoint's state: `saCkptCheckpointStatusGet` fills it."""

    _fields = (
        ("checkpointCreationAttributes", SaCkptCheckpointCreationAttributesT),
        ("numberOfSections", 0),
        ("memoryUsed", 0),
    )
    checkpointCreationAttributes: SaCkptCheckpointCreationAttributesT
    numberOfSections: int
    memoryUsed: int


class SaCkptSectionIdT(_Structure):
    """A section's id."""

    _fields = (("idLen", 0), ("id", b""))
    idLen: int
    id: bytes


class SaCkptSectionDescriptorT(_Structure):
    """A section's state. Times in ns since 1970."""

    _fields = (
        ("sectionId", SaCkptSectionIdT),
        ("expirationTime", constants.SA_TIME_END),
        ("sectionSize", 0),
        ("sectionState", constants.SA_CKPT_SECTION_VALID),
        ("lastUpdate", 0),
    )
    sectionId: SaCkptSectionIdT
    expirationTime: int
    sectionSize: int
    sectionState: int
    lastUpdate: int


class SaCkptIOVectorElementT(_Structure):
    """One element of a read or a write of several sections."""

    _fields = (
        ("sectionId", SaCkptSectionIdT),
        ("dataBuffer", None),
        ("dataSize", 0),
        ("dataOffset", 0),
        ("readSize", 0),
    )
    sectionId: SaCkptSectionIdT
    dataBuffer: Any
    dataSize: int
    dataOffset: int
    readSize: int


class SaCkptCallbacksT(_Structure):
    """The functions that `saCkptDispatch` calls when an asynchronous open or synchronization has ended.

    * `saCkptCheckpointOpenCallback(invocation, checkpointHandle, error)`: the handle is 0 unless the error is
      SA_AIS_OK.
    * `saCkptCheckpointSynchronizeCallback(invocation, error)`.
    """

    _fields = (("saCkptCheckpointOpenCallback", None), ("saCkptCheckpointSynchronizeCallback", None))
    saCkptCheckpointOpenCallback: Callable[[int, int, int], object] | None
    saCkptCheckpointSynchronizeCallback: Callable[[int, int], object] | None


STRUCTURES: Final = (
    SaVersionT,
    SaCkptCheckpointCreationAttributesT,
    SaCkptCheckpointDescriptorT,
    SaCkptSectionIdT,
    SaCkptSectionDescriptorT,
    SaCkptIOVectorElementT,
    SaCkptCallbacksT,
)

_ATTRIBUTES: Final = tuple(name for name, _ in SaCkptCheckpointCreationAttributesT._fields)


def fields_of(attributes: Any) -> tuple[int, ...] | None:
    """Return creation attributes as six numbers, or None for None. Raises: SaAisError INVALID_PARAM."""
    if attributes is None:
        return None
    try:
        return tuple(getattr(attributes, name) for name in _ATTRIBUTES)
    except AttributeError:
        text = f"creation attributes must be a SaCkptCheckpointCreationAttributesT, not {attributes!r}"
        raise error_of(codes.INVALID_PARAM, text) from None


def fill_descriptor(
    descriptor: Any, attributes: tuple[int, ...], number_of_sections: int, memory_used: int
) -> None:
    """Write a checkpoint's state into the caller's descriptor."""
    held = SaCkptCheckpointCreationAttributesT(*attributes)
    try:
        descriptor.checkpointCreationAttributes = held
        descriptor.numberOfSections = number_of_sections
        descriptor.memoryUsed = memory_used
    except AttributeError:
        raise error_of(codes.INVALID_PARAM, f"{descriptor!r} is not a SaCkptCheckpointDescriptorT") from None


def version_of(version: Any) -> tuple[str, int, int]:
    """Return a SaVersionT as (release, major, minor). Raises: SaAisError INVALID_PARAM."""
    try:
        release = version.releaseCode
        if isinstance(release, int):
            release = chr(release)
        return release, version.majorVersion, version.minorVersion
    except (AttributeError, ValueError, OverflowError):
        raise error_of(codes.INVALID_PARAM, f"a version must be a SaVersionT, not {version!r}") from None


def set_version(version: Any, supported: tuple[str, int, int]) -> None:
    """Overwrite a SaVersionT with the supported version; its release code stays a letter or a number."""
    release, version.majorVersion, version.minorVersion = supported
    version.releaseCode = ord(release) if isinstance(version.releaseCode, int) else release
