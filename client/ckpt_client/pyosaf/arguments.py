"""Read a program's arguments as ctypes reads them for a C function: by value, by reference, as memory.

Pure. OpenSAF's binding takes structures themselves and passes them on by reference; we take pointers, `byref`
and arrays too. An argument of an entirely wrong kind raises ctypes.ArgumentError, as ctypes does. An argument
that would crash C code, as far as we can see that here, is ERR_INVALID_PARAM.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from ckpt_client.errors import SaAisError, error_of
from ckpt_client.pyosaf.structures import SaCkptIOVectorElementT, SaCkptSectionIdT
from ckpt_client.pyosaf.types import SaNameT, SaUint8T
from ckpt_protocol import codes
from ckpt_protocol.constants import SA_MAX_NAME_LENGTH
from ckpt_protocol.limits import CALL_BYTES_MAX, OPS_PER_UPDATE_MAX

Given = ParamSpec("Given")
Kind = TypeVar("Kind")

_Pointer: Final[Any] = ctypes._Pointer
_Simple: Final[Any] = ctypes._SimpleCData
_Reference: Final[Any] = type(ctypes.byref(ctypes.c_int()))


def returns_code(call: Callable[Given, None]) -> Callable[Given, int]:
    """Make a function return SA_AIS_OK, or the code of the error that it raises."""

    @wraps(call)
    def inner(*given: Given.args, **named: Given.kwargs) -> int:
        try:
            call(*given, **named)
        except SaAisError as error:
            return int(error.code)
        except MemoryError:
            return int(codes.SaAisErrorT.SA_AIS_ERR_NO_MEMORY)
        return int(codes.OK)

    return inner


def refuse(text: str, index: int = -1) -> NoReturn:
    """Refuse an argument that is of the right kind, but wrong: raise INVALID_PARAM."""
    raise error_of(codes.INVALID_PARAM, text, index)


def number(kind: Any, argument: Any) -> int:
    """Return a number given by value, as an int or a ctypes number. It wraps as the C type does."""
    value = argument.value if isinstance(argument, _Simple) else argument
    if not isinstance(value, int):
        raise ctypes.ArgumentError(f"expected {kind.__name__}, not {type(argument).__name__}")
    return int(kind(value).value)


def reference(kind: type[Kind], argument: Any) -> Kind | None:
    """Return the object of an argument by reference: itself, or what it points to. None is NULL."""
    if argument is None or isinstance(argument, kind):
        return argument
    if isinstance(argument, _Reference):
        return reference(kind, argument._obj)
    if isinstance(argument, _Pointer) and issubclass(argument._type_, kind):
        return argument.contents if argument else None
    if isinstance(argument, ctypes.Array) and issubclass(argument._type_, kind):
        return argument[0] if len(argument) else None
    raise ctypes.ArgumentError(f"expected {kind.__name__}, not {type(argument).__name__}")


def required(kind: type[Kind], argument: Any, what: str) -> Kind:
    """Do what `reference` does, but refuse NULL."""
    found = reference(kind, argument)
    if found is None:
        refuse(f"{what} is NULL")
    return found


def address_of(argument: Any) -> int:
    """Return the address in a pointer of any kind, or the address of an array or a byte; 0 is NULL."""
    if argument is None:
        return 0
    if isinstance(argument, int):
        return argument
    if isinstance(argument, _Reference):
        return ctypes.addressof(argument._obj)
    if isinstance(argument, (ctypes.Array, SaUint8T)):
        return ctypes.addressof(argument)
    if isinstance(argument, (_Pointer, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_wchar_p)):
        return ctypes.cast(argument, ctypes.c_void_p).value or 0
    raise ctypes.ArgumentError(f"expected a pointer, not {type(argument).__name__}")


def is_null(argument: Any) -> bool:
    """Return True if there is no data at all."""
    return not isinstance(argument, (str, bytes, bytearray, memoryview)) and address_of(argument) == 0


def room_at(argument: Any) -> int | None:
    """Return how many bytes lie between an object's address and the end of its memory; None if unknown."""
    if isinstance(argument, _Reference):
        return room_at(argument._obj)
    if not isinstance(argument, (ctypes.Array, ctypes.Structure, ctypes.Union, SaUint8T)):
        return None
    whole: Any = argument
    while whole._b_base_ is not None:
        whole = whole._b_base_
        if isinstance(whole, _Pointer):
            return None
    if not whole._b_needsfree_:
        return None
    return ctypes.addressof(whole) + ctypes.sizeof(whole) - ctypes.addressof(argument)


def content(argument: Any, size: int, what: str, index: int = -1) -> bytes:
    """Return a copy of `size` bytes of a program's memory, given as a pointer, an array or bytes.

    Raises: INVALID_PARAM for NULL with a size (R88), and for a size beyond the known end of the memory.
    """
    if isinstance(argument, str):
        argument = argument.encode()
    if isinstance(argument, (bytes, bytearray, memoryview)):
        held = bytes(argument) + b"\0"
        if size > len(held):
            refuse(f"{what} has {len(held) - 1} bytes, fewer than the size {size}", index)
        return held[:size]
    address = address_of(argument)
    if size == 0:
        return b""
    if address == 0:
        refuse(f"{what} is NULL, but its size is {size}", index)
    room = room_at(argument)
    if size > (CALL_BYTES_MAX if room is None else room):
        refuse(f"{what} has fewer than {size} bytes", index)
    return ctypes.string_at(address, size)


def name_of(argument: Any) -> bytes:
    """Return a checkpoint's name. It may contain zero bytes, so only its length counts."""
    name = required(SaNameT, argument, "the checkpoint's name")
    if name.length > SA_MAX_NAME_LENGTH:
        refuse(f"a name may have at most {SA_MAX_NAME_LENGTH} bytes, not {name.length}")
    return ctypes.string_at(ctypes.addressof(name) + SaNameT.value.offset, name.length)


def section_id_of(argument: Any, index: int = -1) -> bytes:
    """Return a section's id. Source: R91 (a length without bytes, or bytes without a length)."""
    section_id = required(SaCkptSectionIdT, argument, "the section's id")
    if bool(section_id.idLen) != bool(section_id.id):
        refuse(
            f"idLen of a section id is {section_id.idLen}, which contradicts its id: both must "
            "be set, or neither",
            index,
        )
    return ctypes.string_at(address_of(section_id.id), section_id.idLen) if section_id.idLen else b""


def io_vector_of(argument: Any, count: int) -> Sequence[SaCkptIOVectorElementT]:
    """Return the elements of an IO vector, given as an array, its first element, or a pointer to it.

    The elements are the program's own, not copies. Source: SAF 3.7.1, 3.7.3; R120 for an empty vector.
    """
    first = required(SaCkptIOVectorElementT, argument, "the IO vector")
    if count == 0:
        refuse("the IO vector has no elements")
    if count > OPS_PER_UPDATE_MAX:
        raise error_of(
            codes.NO_RESOURCES, f"a call may have at most {OPS_PER_UPDATE_MAX} elements, not {count}"
        )
    bytes_wanted = count * ctypes.sizeof(SaCkptIOVectorElementT)
    room = room_at(first)
    if room is not None and bytes_wanted > room:
        refuse(f"the IO vector has fewer than {count} elements")
    array: Any = (SaCkptIOVectorElementT * count).from_address(ctypes.addressof(first))
    return [array[place] for place in range(count)]
