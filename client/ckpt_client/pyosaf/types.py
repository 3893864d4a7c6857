"""The contents of pyosaf's module `saAis`: types, structures and enumerations that all services share.

Pure. Structures have OpenSAF's fields in OpenSAF's order, because programs fill them by position. A name and
a version's release are bytes. Text is encoded as UTF-8, since programs written for Python 2 pass text.

Source: SAI-Overview-B.02.01, section 3.3; OpenSAF's saAis for what is specific to Python.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, Final

from ckpt_client.pyosaf.enumerations import Enumeration, constants_of
from ckpt_protocol import constants
from ckpt_protocol.codes import SaAisErrorT as Code

SaInt8T = ctypes.c_char
SaInt16T = ctypes.c_short
SaInt32T = ctypes.c_int
SaInt64T = ctypes.c_longlong
SaUint8T = ctypes.c_ubyte
SaUint16T = ctypes.c_ushort
SaUint32T = ctypes.c_uint
SaUint64T = ctypes.c_ulonglong
SaEnumT = SaInt32T
SaVoidPtr = ctypes.c_void_p
SaFloatT = ctypes.c_float
SaDoubleT = ctypes.c_double
SaStringT = ctypes.c_char_p

SaTimeT = SaInt64T
SaInvocationT = SaUint64T
SaSizeT = SaUint64T
SaOffsetT = SaUint64T
SaSelectionObjectT = SaUint64T

SaBoolT = SaEnumT
SaDispatchFlagsT = SaEnumT
SaAisErrorT = SaEnumT
SaServicesT = SaEnumT
SaLogLimitIdT = SaEnumT

saAis: Final = constants_of(
    {
        "SA_TIME_END": constants.SA_TIME_END,
        "SA_TIME_BEGIN": constants.SA_TIME_BEGIN,
        # OpenSAF's binding has the bits of the number without its sign; SaTimeT turns them into the number.
        "SA_TIME_UNKNOWN": constants.SA_TIME_UNKNOWN % 2**64,
        "SA_TIME_ONE_MICROSECOND": constants.SA_TIME_ONE_MICROSECOND,
        "SA_TIME_ONE_MILLISECOND": constants.SA_TIME_ONE_MILLISECOND,
        "SA_TIME_ONE_SECOND": constants.SA_TIME_ONE_SECOND,
        "SA_TIME_ONE_MINUTE": constants.SA_TIME_ONE_MINUTE,
        "SA_TIME_ONE_HOUR": constants.SA_TIME_ONE_HOUR,
        "SA_TIME_ONE_DAY": constants.SA_TIME_ONE_DAY,
        "SA_TIME_MAX": constants.SA_TIME_MAX,
        "SA_MAX_NAME_LENGTH": constants.SA_MAX_NAME_LENGTH,
        "SA_TRACK_CURRENT": 0x01,
        "SA_TRACK_CHANGES": 0x02,
        "SA_TRACK_CHANGES_ONLY": 0x04,
        "SA_TRACK_LOCAL": 0x08,
        "SA_TRACK_START_STEP": 0x10,
        "SA_TRACK_VALIDATE_STEP": 0x20,
    }
)

eSaBoolT: Final = Enumeration((("SA_FALSE", 0), ("SA_TRUE", 1)))
eSaDispatchFlagsT: Final = Enumeration(
    (
        ("SA_DISPATCH_ONE", constants.SA_DISPATCH_ONE),
        ("SA_DISPATCH_ALL", constants.SA_DISPATCH_ALL),
        ("SA_DISPATCH_BLOCKING", constants.SA_DISPATCH_BLOCKING),
    )
)
eSaAisErrorT: Final = Enumeration([(code.name, int(code)) for code in Code])
# (SA_SCV_LOG is how OpenSAF's binding spells the name of the log service.)
eSaServicesT: Final = Enumeration(
    (
        ("SA_SVC_HPI", 1),
        ("SA_SVC_AMF", 2),
        ("SA_SVC_CLM", 3),
        ("SA_SVC_CKPT", 4),
        ("SA_SVC_EVT", 5),
        ("SA_SVC_MSG", 6),
        ("SA_SVC_LCK", 7),
        ("SA_SVC_IMMS", 8),
        ("SA_SCV_LOG", 9),
        ("SA_SVC_NTF", 10),
        ("SA_SVC_NAM", 11),
        ("SA_SVC_TMR", 12),
        ("SA_SVC_SMF", 13),
        ("SA_SVC_SEC", 14),
        ("SA_SVC_PLM", 15),
    )
)
eSaLogLimitIdT: Final = Enumeration((("SA_LOG_MAX_NUM_CLUSTER_APP_LOG_STREAMS_ID", 1),))


def as_bytes(text: Any) -> Any:
    """Return text as its UTF-8 bytes, and anything else unchanged."""
    return text.encode() if isinstance(text, str) else text


class SaAnyT(ctypes.Structure):
    """Any bytes: their number and their address."""

    _fields_ = (("bufferSize", SaSizeT), ("bufferAddr", ctypes.POINTER(SaInt8T)))


class SaNameT(ctypes.Structure):
    """A name of up to 256 bytes. It is made from the name, which determines `length`."""

    _fields_ = (("length", SaUint16T), ("value", SaInt8T * constants.SA_MAX_NAME_LENGTH))

    def __init__(self, name: bytes | str = b"") -> None:
        given = as_bytes(name)
        super().__init__(len(given), given)

    def __setattr__(self, field: str, value: Any) -> None:
        super().__setattr__(field, as_bytes(value))


class SaVersionT(ctypes.Structure):
    """A version of the interface, such as (b'B', 2, 2)."""

    _fields_ = (("releaseCode", SaInt8T), ("majorVersion", SaUint8T), ("minorVersion", SaUint8T))

    def __init__(self, *values: Any, **named: Any) -> None:
        super().__init__(*map(as_bytes, values), **{field: as_bytes(value) for field, value in named.items()})

    def __setattr__(self, field: str, value: Any) -> None:
        super().__setattr__(field, as_bytes(value))


class SaLimitValueT(ctypes.Union):
    """The value of an implementation's limit."""

    _fields_ = (
        ("int64Value", SaInt64T),
        ("uint64Value", SaUint64T),
        ("timeValue", SaTimeT),
        ("floatValue", SaFloatT),
        ("doubleValue", SaDoubleT),
    )


def BYREF(data: Any) -> Any:
    """Return a reference to a ctypes object. None, which stands for NULL, stays None."""
    return None if data is None else ctypes.byref(data)


def marshalNullArray(plist: Sequence[Any] | None) -> Any:
    """Return a C array of pointers to the list's ctypes objects, with NULL at its end. None stays None."""
    if plist is None:
        return None
    if not plist:
        return (ctypes.c_void_p * 1)()
    kind = type(plist[0])
    if kind is SaStringT:
        return marshalSaStringTArray(plist)
    array = (ctypes.POINTER(kind) * (len(plist) + 1))()
    for place, member in enumerate(plist):
        array[place] = ctypes.pointer(member)
    return array


def marshalSaStringTArray(plist: Sequence[Any] | None) -> Any:
    """Return a C array of the list's strings, with NULL at its end. None stays None."""
    if plist is None:
        return None
    array = (SaStringT * (len(plist) + 1))()
    for place, member in enumerate(plist):
        array[place] = as_bytes(member)
    return array


def unmarshalNullArray(c_array: Any) -> list[Any]:
    """Return the objects to which an array of pointers points, or the strings in an array, up to NULL."""
    members = unmarshalSaStringTArray(c_array)
    return [member if isinstance(member, bytes) else member[0] for member in members]


def unmarshalSaStringTArray(c_array: Any) -> list[Any]:
    """Return the members of an array, up to NULL."""
    members: list[Any] = []
    for member in c_array or ():
        if not member:
            break
        members.append(member)
    return members


def marshalNullArrayVoidPtrPtr(plist: Sequence[Any] | None) -> Any:
    """Return the array of `marshalNullArray` as a pointer to a void pointer."""
    return ctypes.pointer(ctypes.cast(marshalNullArray(plist), SaVoidPtr))
