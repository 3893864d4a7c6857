"""What ASP's Python modules `asp`, `aspMisc` and `misc` offer: the SA Forum's constants and types, error
names.

Pure. The functions of `asp` are no part of this.
"""

from types import ModuleType
from typing import Any, Final

from ckpt_client.errors import Error
from ckpt_protocol import constants
from ckpt_protocol.codes import SaAisErrorT

SAF_CONSTANTS: Final[dict[str, int]] = {
    **{code.name: int(code) for code in SaAisErrorT},
    **{
        name: value
        for name, value in vars(constants).items()
        if name.startswith(("SA_TIME_", "SA_CKPT_", "SA_DISPATCH_", "SA_MAX_")) and type(value) is int
    },
}
"""Every code, flag, time and enumeration by its name. (The two empty section ids are no integers.)"""

SECTION_IDS: Final[dict[str, bytes]] = {
    "SA_CKPT_DEFAULT_SECTION_ID": constants.SA_CKPT_DEFAULT_SECTION_ID,
    "SA_CKPT_GENERATED_SECTION_ID": constants.SA_CKPT_GENERATED_SECTION_ID,
}


class _Structure:
    """A structure of the interface: its fields are attributes, all optional and changeable."""

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
    """A version of the interface, as B.2.2."""

    _fields = (("releaseCode", "B"), ("majorVersion", 0), ("minorVersion", 0))


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


class SaCkptCheckpointDescriptorT(_Structure):
    """A checkpoint's state."""

    _fields = (
        ("checkpointCreationAttributes", SaCkptCheckpointCreationAttributesT),
        ("numberOfSections", 0),
        ("memoryUsed", 0),
    )


class SaCkptSectionIdT(_Structure):
    """A section's id."""

    _fields = (("idLen", 0), ("id", b""))


class SaCkptSectionDescriptorT(_Structure):
    """A section's state. Times in ns since 1970."""

    _fields = (
        ("sectionId", SaCkptSectionIdT),
        ("expirationTime", constants.SA_TIME_END),
        ("sectionSize", 0),
        ("sectionState", constants.SA_CKPT_SECTION_VALID),
        ("lastUpdate", 0),
    )


class SaCkptIOVectorElementT(_Structure):
    """One element of a read or a write of several sections."""

    _fields = (
        ("sectionId", SaCkptSectionIdT),
        ("dataBuffer", None),
        ("dataSize", 0),
        ("dataOffset", 0),
        ("readSize", 0),
    )


class SaCkptCallbacksT(_Structure):
    """What to call when an asynchronous open or synchronization ends."""

    _fields = (("saCkptCheckpointOpenCallback", None), ("saCkptCheckpointSynchronizeCallback", None))


_TYPES: Final = (
    SaVersionT,
    SaCkptCheckpointCreationAttributesT,
    SaCkptCheckpointDescriptorT,
    SaCkptSectionIdT,
    SaCkptSectionDescriptorT,
    SaCkptIOVectorElementT,
    SaCkptCallbacksT,
)

ERROR_NAMES: Final[dict[int, str]] = {int(code): code.name for code in SaAisErrorT}


def error_string(code: int | str) -> str:
    """`aspMisc.getErrorString`: a code's name; a text passes through."""
    return code if isinstance(code, str) else ERROR_NAMES.get(code, "UNKNOWN_ERROR_CODE")


def _module(name: str, says: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, says)
    vars(module).update(content)
    return module


def make_modules() -> dict[str, ModuleType]:
    """The modules, by the names under which ASP's programs import them."""
    types = {kind.__name__: kind for kind in _TYPES}
    asp = _module("asp", "The SA Forum's constants and types.", {**SAF_CONSTANTS, **SECTION_IDS, **types})
    names = {"AspError": dict(ERROR_NAMES), "getErrorString": error_string}
    return {
        "asp": asp,
        "safplusCApi": asp,
        "aspMisc": _module("aspMisc", "Names of the SA Forum's return codes.", names),
        "misc": _module("misc", "The base of ASP's exceptions.", {"Error": Error}),
    }
