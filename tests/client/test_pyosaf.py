"""pyosaf's modules: what they hold, how arguments are taken, what is refused without asking anybody."""

import copy
import ctypes
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ckpt_client.errors import SaAisError
from ckpt_client.pyosaf import arguments, memory, tracking
from ckpt_client.pyosaf.enumerations import Const, Enumeration, EnumException
from ckpt_client.pyosaf.modules import FUNCTIONS, make_modules
from ckpt_client.saf import SectionChange, SectionChangeT
from ckpt_protocol import codes
from ckpt_protocol.codes import SaAisErrorT

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join(str(ROOT / folder) for folder in ("protocol", "client"))
NEVER_GIVEN = 123_456_789

MODULES = make_modules()
saAis: Any = MODULES["pyosaf.saAis"]
saCkpt: Any = MODULES["pyosaf.saCkpt"]
OK = codes.OK


def run(program: Path, *given: str) -> subprocess.CompletedProcess[str]:
    """A program under `python -m ckpt_client.pyosaf`."""
    environment = {**os.environ, "PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "ckpt_client.pyosaf", str(program), *given]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def section_id(content: bytes) -> Any:
    """A section id as programs make it."""
    return saCkpt.SaCkptSectionIdT(len(content), (ctypes.c_ubyte * len(content))(*content))


# -- modules


def test_the_package_holds_its_modules() -> None:
    package = MODULES["pyosaf"]
    assert isinstance(package, ModuleType)
    assert package.saAis is saAis and package.saCkpt is saCkpt
    assert MODULES["pyosaf.saEnumConst"].Enumeration is Enumeration


def test_there_are_29_functions() -> None:
    assert len(FUNCTIONS) == 29
    for name, function in FUNCTIONS.items():
        assert getattr(saCkpt, name) is function
        assert function.__name__ == name


def test_constants_stand_in_an_object_of_their_module() -> None:
    assert saAis.saAis.SA_TIME_END == saAis.saAis.SA_TIME_MAX == 2**63 - 1
    assert saAis.SaTimeT(saAis.saAis.SA_TIME_UNKNOWN).value == -(2**63)
    assert saAis.saAis.SA_TIME_ONE_DAY == 86400 * 10**9
    assert saAis.saAis.SA_MAX_NAME_LENGTH == 256
    assert saAis.saAis.SA_TRACK_VALIDATE_STEP == 0x20
    flags = saCkpt.saCkpt
    assert (flags.SA_CKPT_WR_ALL_REPLICAS, flags.SA_CKPT_CHECKPOINT_COLLOCATED) == (1, 8)
    assert (flags.SA_CKPT_CHECKPOINT_READ, flags.SA_CKPT_CHECKPOINT_CREATE) == (1, 4)


def test_enumerations_name_numbers_both_ways() -> None:
    assert saAis.eSaAisErrorT.SA_AIS_ERR_DEPLOYMENT == 40
    assert saAis.eSaAisErrorT.whatis(12) == "SA_AIS_ERR_NOT_EXIST"
    assert saAis.eSaAisErrorT.whatis(99) == "UNKNOWN_ENUM"
    assert saAis.eSaDispatchFlagsT.SA_DISPATCH_BLOCKING == 3
    assert saAis.eSaServicesT.SA_SVC_CKPT == 4
    assert saCkpt.eSaCkptSectionsChosenT.SA_CKPT_SECTIONS_ANY == 5
    assert saCkpt.eSaCkptSectionStateT.whatis(2) == "SA_CKPT_SECTION_CORRUPTED"
    with pytest.raises(AttributeError):
        saAis.eSaAisErrorT.SA_AIS_NOTHING  # noqa: B018


def test_what_saais_and_ctypes_hold_is_in_sackpt_as_well() -> None:
    for name in ("SaNameT", "SaVersionT", "eSaAisErrorT", "SaSelectionObjectT", "BYREF", "saAis"):
        assert getattr(saCkpt, name) is getattr(saAis, name)
    assert saCkpt.POINTER is ctypes.POINTER
    assert saAis.create_string_buffer is ctypes.create_string_buffer


def test_an_enumeration_numbers_what_has_no_number() -> None:
    made = Enumeration((("first", 4096), "second", ("tenth", 10)))
    assert (made.first, made.second, made.tenth) == (4096, 4097, 10)
    assert made.whatis(4097) == "second"
    assert made.lookup["tenth"] == 10 and made.reverse_lookup[10] == "tenth"
    assert Enumeration(("one", ("other", 0)), are_unique=False).other == 0


@pytest.mark.parametrize(
    "members", [("same", "same"), (("one", 1), ("two", 1)), (("one", "1"),), (7,), (("one", 1, 2),)]
)
def test_an_enumeration_refuses_what_is_no_member(members: Any) -> None:
    with pytest.raises(EnumException):
        Enumeration(members)


def test_a_constant_is_set_once() -> None:
    constants = Const()
    constants.ONE = 1
    with pytest.raises(Const.ConstError):
        constants.ONE = 2
    with pytest.raises(Const.ConstError):
        del constants.ONE
    with pytest.raises(NameError):
        del constants.TWO
    with pytest.raises(AttributeError):
        constants.TWO  # noqa: B018
    assert constants.ONE == 1


# -- structures


def test_a_name_is_made_from_bytes_or_text() -> None:
    for name in (saAis.SaNameT(b"safCkpt=x"), saAis.SaNameT("safCkpt=x")):
        assert (name.length, name.value) == (9, b"safCkpt=x")
    assert saAis.SaNameT().length == 0
    assert saAis.SaNameT("ü").length == 2
    assert saAis.SaNameT(b"n" * 256).length == 256
    with pytest.raises(ValueError):
        saAis.SaNameT(b"n" * 257)
    name = saAis.SaNameT()
    name.value = "later"
    name.length = 5
    assert arguments.name_of(name) == b"later"


def test_a_version_is_made_from_bytes_text_or_nothing() -> None:
    made = saAis.SaVersionT("B", 2, 2)
    given = saAis.SaVersionT(releaseCode=b"B", majorVersion=2, minorVersion=2)
    copied = copy.deepcopy(made)
    for version in (made, given, copied):
        assert (version.releaseCode, version.majorVersion, version.minorVersion) == (b"B", 2, 2)
    empty = saAis.SaVersionT()
    empty.releaseCode = "A"
    assert empty.releaseCode == b"A"


def test_structures_have_the_fields_of_the_c_interface_in_their_order() -> None:
    fields = [name for name, _ in saCkpt.SaCkptIOVectorElementT._fields_]
    assert fields == ["sectionId", "dataBuffer", "dataSize", "dataOffset", "readSize"]
    assert ctypes.sizeof(saCkpt.SaCkptIOVectorElementT) == 48
    assert ctypes.sizeof(saCkpt.SaCkptCheckpointCreationAttributesT) == 48
    assert ctypes.sizeof(saCkpt.SaCkptCallbacksT_2) == 24
    for empty in (saCkpt.SA_CKPT_DEFAULT_SECTION_ID(), saCkpt.SA_CKPT_GENERATED_SECTION_ID()):
        assert empty.idLen == 0 and not empty.id


def test_an_io_vector_is_an_array() -> None:
    vector = saCkpt.createSaCkptIOVector(3)
    assert len(vector) == 3 and isinstance(vector[0], saCkpt.SaCkptIOVectorElementT)
    assert saCkpt.createSaCkptIOVector(0) is None


def test_null_ended_arrays_go_both_ways() -> None:
    numbers = [ctypes.c_int(4), ctypes.c_int(5)]
    array = saAis.marshalNullArray(numbers)
    assert len(array) == 3
    assert [int(value) for value in saAis.unmarshalNullArray(array)] == [4, 5]
    texts = saAis.marshalNullArray([ctypes.c_char_p(b"one"), ctypes.c_char_p(b"two")])
    assert saAis.unmarshalNullArray(texts) == saAis.unmarshalSaStringTArray(texts) == [b"one", b"two"]
    assert saAis.marshalNullArray(None) is None and saAis.marshalSaStringTArray(None) is None
    assert saAis.unmarshalNullArray(saAis.marshalNullArray([])) == []
    assert saAis.unmarshalNullArray(None) == []
    assert saAis.marshalNullArrayVoidPtrPtr(numbers).contents.value
    assert saAis.BYREF(None) is None
    assert saAis.BYREF(numbers[0])._obj is numbers[0]


# -- arguments


@pytest.mark.parametrize("given", [7, ctypes.c_ulonglong(7), ctypes.c_int(7), True + 6])
def test_a_number_comes_by_value(given: Any) -> None:
    assert arguments.number(saAis.SaUint64T, given) == 7


def test_a_number_wraps_as_in_c() -> None:
    assert arguments.number(saAis.SaUint32T, -1) == 2**32 - 1
    assert arguments.number(saAis.SaTimeT, 2**63) == -(2**63)


@pytest.mark.parametrize("given", [None, "7", 7.0, b"7", ctypes.c_char_p(b"7")])
def test_what_is_no_number_is_ctypes_error(given: Any) -> None:
    with pytest.raises(ctypes.ArgumentError):
        arguments.number(saAis.SaUint64T, given)


def test_a_structure_comes_by_reference_in_every_form() -> None:
    version = saAis.SaVersionT(b"B", 2, 2)
    array = (saAis.SaVersionT * 2)(version)
    forms = (version, ctypes.byref(version), ctypes.pointer(version), ctypes.byref(ctypes.pointer(version)))
    for form in forms:
        found = arguments.reference(saAis.SaVersionT, form)
        assert found is not None and ctypes.addressof(found) == ctypes.addressof(version)
    first = arguments.reference(saAis.SaVersionT, array)
    assert first is not None and ctypes.addressof(first) == ctypes.addressof(array)


def test_null_in_every_form_is_none() -> None:
    for form in (None, ctypes.POINTER(saAis.SaVersionT)(), (saAis.SaVersionT * 0)()):
        assert arguments.reference(saAis.SaVersionT, form) is None


@pytest.mark.parametrize("given", [7, b"B", object(), ctypes.c_int(1), ctypes.pointer(ctypes.c_int(1))])
def test_another_structure_is_ctypes_error(given: Any) -> None:
    with pytest.raises(ctypes.ArgumentError):
        arguments.reference(saAis.SaVersionT, given)


BUFFER = ctypes.create_string_buffer(b"hello", 5)
IN_FIVE_BYTES = {
    "array": BUFFER,
    "reference": ctypes.byref(BUFFER),
    "pointer": ctypes.pointer(BUFFER),
    "void pointer": ctypes.cast(BUFFER, ctypes.c_void_p),
    "address": ctypes.addressof(BUFFER),
    "bytes": b"hello",
    "text": "hello",
    "bytearray": bytearray(b"hello"),
}


@pytest.mark.parametrize("form", IN_FIVE_BYTES)
def test_data_comes_as_any_pointer_or_as_bytes(form: str) -> None:
    assert arguments.content(IN_FIVE_BYTES[form], 5, "data") == b"hello"
    assert arguments.content(IN_FIVE_BYTES[form], 2, "data") == b"he"
    assert arguments.content(IN_FIVE_BYTES[form], 0, "data") == b""


def test_bytes_end_with_a_zero_byte_as_in_c() -> None:
    assert arguments.content(b"hi", 3, "data") == b"hi\0"


@pytest.mark.parametrize(
    "given", [None, 0, ctypes.c_void_p(), ctypes.c_char_p(), ctypes.POINTER(ctypes.c_int)()]
)
def test_null_is_no_data_unless_none_is_asked_for(given: Any) -> None:
    assert arguments.is_null(given)
    assert arguments.content(given, 0, "data") == b""
    with pytest.raises(SaAisError) as refused:
        arguments.content(given, 1, "data")
    assert refused.value.code == codes.INVALID_PARAM


@pytest.mark.parametrize("given", [b"hello", BUFFER, ctypes.byref(BUFFER)])
def test_more_than_is_there_is_refused(given: Any) -> None:
    with pytest.raises(SaAisError) as refused:
        arguments.content(given, 7, "data")
    assert refused.value.code == codes.INVALID_PARAM


def test_a_size_beyond_every_limit_is_refused_before_memory_is_touched() -> None:
    with pytest.raises(SaAisError):
        arguments.content(ctypes.addressof(BUFFER), 2**62, "data")


def test_what_is_no_pointer_is_ctypes_error() -> None:
    for given in (1.5, object(), ctypes.c_int(3), saAis.SaVersionT()):
        with pytest.raises(ctypes.ArgumentError):
            arguments.address_of(given)


def test_the_capacity_of_an_element_is_the_rest_of_its_array() -> None:
    vector = saCkpt.createSaCkptIOVector(3)
    size = ctypes.sizeof(saCkpt.SaCkptIOVectorElementT)
    assert arguments.room_at(vector) == arguments.room_at(vector[0]) == 3 * size
    assert arguments.room_at(vector[2]) == size
    assert arguments.room_at(ctypes.pointer(vector[0]).contents) is None


def test_an_io_vector_comes_as_array_first_element_or_pointer() -> None:
    vector = saCkpt.createSaCkptIOVector(3)
    vector[2].dataSize = 9
    element = ctypes.POINTER(saCkpt.SaCkptIOVectorElementT)
    for form in (vector, vector[0], ctypes.pointer(vector[0]), ctypes.cast(vector, element)):
        elements = arguments.io_vector_of(form, 3)
        assert [one.dataSize for one in elements] == [0, 0, 9]
        elements[1].readSize += 1
    assert vector[1].readSize == 4
    assert len(arguments.io_vector_of(vector[1], 2)) == 2


@pytest.mark.parametrize("count", [0, 4])
def test_an_io_vector_has_as_many_elements_as_the_call_says(count: int) -> None:
    with pytest.raises(SaAisError) as refused:
        arguments.io_vector_of(saCkpt.createSaCkptIOVector(3), count)
    assert refused.value.code == codes.INVALID_PARAM


def test_an_io_vector_of_too_many_elements_is_refused() -> None:
    with pytest.raises(SaAisError) as refused:
        arguments.io_vector_of(ctypes.pointer(saCkpt.SaCkptIOVectorElementT()), 2**32 - 1)
    assert refused.value.code == codes.NO_RESOURCES


def test_a_section_id_is_its_bytes_and_may_hold_zeros() -> None:
    assert arguments.section_id_of(section_id(b"a\0b")) == b"a\0b"
    assert arguments.section_id_of(saCkpt.SA_CKPT_DEFAULT_SECTION_ID()) == b""


def test_a_length_without_bytes_or_bytes_without_a_length_are_no_section_id() -> None:
    wrong = section_id(b"abc")
    wrong.idLen = 0
    for given in (wrong, saCkpt.SaCkptSectionIdT(3, None), None):
        with pytest.raises(SaAisError) as refused:
            arguments.section_id_of(given)
        assert refused.value.code == codes.INVALID_PARAM


def test_a_name_longer_than_its_structure_is_refused() -> None:
    name = saAis.SaNameT(b"safCkpt=x")
    name.length = 257
    with pytest.raises(SaAisError) as refused:
        arguments.name_of(name)
    assert refused.value.code == codes.INVALID_PARAM


# -- memory


def test_memory_stays_until_it_is_freed_once() -> None:
    held = memory.Allocations()
    address = held.allocate(b"a\0b")
    assert ctypes.string_at(address, 4) == b"a\0b\0"
    assert held.allocate(b"") not in (0, address)
    assert (held.free(address), held.free(address), held.free(0), len(held)) == (True, False, False, 1)


# -- tracking


def change(
    sequence: int, kind: SectionChangeT, content: bytes, offset: int = 0, size: int = 0
) -> SectionChange:
    return SectionChange(sequence, kind, content, offset, size)


def test_each_modifying_call_is_reported_separately() -> None:
    """R144: an empty section brings no data, and what expires is no call."""
    kinds = SectionChangeT
    changes = [
        change(1, kinds.CREATED, b"a", 0, 3),
        change(2, kinds.CREATED, b"empty"),
        change(3, kinds.WRITTEN, b"a", 1, 2),
        change(3, kinds.WRITTEN, b"empty", 0, 5),
        change(4, kinds.EXPIRED, b"a"),
        change(5, kinds.DELETED, b"empty"),
    ]
    told = [[one.section_id for one in update] for update in tracking.told(changes)]
    assert told == [[b"a"], [b"a", b"empty"], [b"empty"]]


def test_elements_say_where_and_how_much_and_carry_no_data() -> None:
    elements = tracking.io_vector(
        [change(3, SectionChangeT.WRITTEN, b"key", 4, 5), change(3, SectionChangeT.OVERWRITTEN, b"", 0, 2)]
    )
    first, second = elements
    assert ctypes.string_at(first.sectionId.id, first.sectionId.idLen) == b"key"
    assert (first.dataOffset, first.dataSize, first.dataBuffer, first.readSize) == (4, 5, None, 0)
    assert second.sectionId.idLen == 0 and not second.sectionId.id


# -- what is refused without a service


def code(name: str, *given: Any) -> str:
    """The code that a function returns, by its name."""
    returned = getattr(saCkpt, name)(*given)
    assert type(returned) is int
    return SaAisErrorT(returned).name.removeprefix("SA_AIS_")


def initialize_arguments(version: Any) -> tuple[Any, Any, Any]:
    return saCkpt.SaCkptHandleT(), saCkpt.SaCkptCallbacksT(), version


@pytest.mark.parametrize("version", [(b"A", 1, 1), (b"C", 1, 1), (b"B", 3, 1), (b"B", 4, 0)])
def test_a_version_that_is_not_supported_is_answered_with_the_one_that_is(version: Any) -> None:
    asked = saAis.SaVersionT(*version)
    handle, callbacks, _ = initialize_arguments(asked)
    assert code("saCkptInitialize", handle, callbacks, asked) == "ERR_VERSION"
    assert (asked.releaseCode, asked.majorVersion, asked.minorVersion) == (b"B", 2, 3)
    assert handle.value == 0


def test_initializing_needs_a_place_for_the_handle_and_a_version() -> None:
    version = saAis.SaVersionT(b"B", 2, 2)
    assert code("saCkptInitialize", None, None, version) == "ERR_INVALID_PARAM"
    assert code("saCkptInitialize", saCkpt.SaCkptHandleT(), None, None) == "ERR_INVALID_PARAM"
    with pytest.raises(ctypes.ArgumentError):
        saCkpt.saCkptInitialize(saCkpt.SaCkptHandleT(), saCkpt.SaCkptCallbacksT_2(), version)


@pytest.mark.parametrize(("major", "expected"), [(2, "ERR_UNAVAILABLE"), (1, "ERR_TRY_AGAIN")])
def test_no_node_serves(major: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CKPTD_ADDRESS", "unix:///nowhere/ckptd.sock")
    handle, callbacks, version = initialize_arguments(saAis.SaVersionT(b"B", major, 1))
    assert code("saCkptInitialize", handle, callbacks, version) == expected


ATTRIBUTES = saCkpt.SaCkptSectionCreationAttributesT(ctypes.pointer(section_id(b"a")), 2**63 - 1)
ELEMENT = saCkpt.SaCkptIOVectorElementT()
NAME = saAis.SaNameT(b"safCkpt=x")
AFTER_HANDLE: dict[str, tuple[Any, ...]] = {
    "saCkptSelectionObjectGet": (saAis.SaSelectionObjectT(),),
    "saCkptDispatch": (77,),
    "saCkptFinalize": (),
    "saCkptTrack": (),
    "saCkptTrackStop": (),
    "saCkptCheckpointOpen": (NAME, None, 1, 0, saCkpt.SaCkptCheckpointHandleT()),
    "saCkptCheckpointOpenAsync": (1, NAME, None, 1),
    "saCkptCheckpointClose": (),
    "saCkptCheckpointUnlink": (NAME,),
    "saCkptCheckpointRetentionDurationSet": (0,),
    "saCkptActiveReplicaSet": (),
    "saCkptCheckpointStatusGet": (saCkpt.SaCkptCheckpointDescriptorT(),),
    "saCkptCheckpointSynchronize": (0,),
    "saCkptCheckpointSynchronizeAsync": (0,),
    "saCkptCheckpointTrack": (),
    "saCkptCheckpointTrackStop": (),
    "saCkptSectionCreate": (ATTRIBUTES, b"", 0),
    "saCkptSectionIdFree": (ctypes.c_ubyte(),),
    "saCkptSectionDelete": (section_id(b"a"),),
    "saCkptSectionExpirationTimeSet": (section_id(b"a"), 0),
    "saCkptSectionIterationInitialize": (5, 0, saCkpt.SaCkptSectionIterationHandleT()),
    "saCkptSectionIterationNext": (saCkpt.SaCkptSectionDescriptorT(),),
    "saCkptSectionIterationFinalize": (),
    "saCkptCheckpointWrite": (ELEMENT, 1, None),
    "saCkptSectionOverwrite": (section_id(b"a"), b"", 0),
    "saCkptCheckpointRead": (ELEMENT, 1, None),
    "saCkptIOVectorElementDataFree": (ctypes.addressof(BUFFER),),
}


def test_every_function_but_initialize_takes_a_handle_first() -> None:
    assert set(AFTER_HANDLE) | {"saCkptInitialize", "saCkptInitialize_2"} == set(FUNCTIONS)


@pytest.mark.parametrize("handle", [0, NEVER_GIVEN, ctypes.c_ulonglong(2**64 - 1)])
@pytest.mark.parametrize("name", AFTER_HANDLE)
def test_a_handle_that_was_never_given_is_bad(name: str, handle: Any) -> None:
    """R1, R20: also with a wrong flag, `saCkptDispatch` looks at the handle first."""
    assert code(name, handle, *AFTER_HANDLE[name]) == "ERR_BAD_HANDLE"


NULLS = {
    "saCkptSelectionObjectGet": (None,),
    "saCkptCheckpointOpen": (None, None, 1, 0, saCkpt.SaCkptCheckpointHandleT()),
    "saCkptCheckpointOpenAsync": (1, None, None, 1),
    "saCkptCheckpointUnlink": (None,),
    "saCkptCheckpointStatusGet": (None,),
    "saCkptSectionCreate": (None, b"", 0),
    "saCkptSectionIdFree": (None,),
    "saCkptSectionDelete": (None,),
    "saCkptSectionExpirationTimeSet": (None, 0),
    "saCkptSectionIterationInitialize": (5, 0, None),
    "saCkptSectionIterationNext": (None,),
    "saCkptCheckpointWrite": (None, 1, None),
    "saCkptSectionOverwrite": (section_id(b"a"), None, 0),
    "saCkptCheckpointRead": (None, 1, None),
    "saCkptIOVectorElementDataFree": (None,),
}


@pytest.mark.parametrize("name", NULLS)
def test_null_where_something_has_to_be_is_refused(name: str) -> None:
    assert code(name, NEVER_GIVEN, *NULLS[name]) == "ERR_INVALID_PARAM"


def test_more_nulls_are_refused() -> None:
    assert code("saCkptCheckpointOpen", NEVER_GIVEN, NAME, None, 1, 0, None) == "ERR_INVALID_PARAM"
    without_id = saCkpt.SaCkptSectionCreationAttributesT(None, 0)
    assert code("saCkptSectionCreate", NEVER_GIVEN, without_id, b"", 0) == "ERR_INVALID_PARAM"
    assert code("saCkptSectionCreate", NEVER_GIVEN, ATTRIBUTES, None, 1) == "ERR_INVALID_PARAM"
    null = ctypes.c_void_p()
    assert code("saCkptSectionOverwrite", NEVER_GIVEN, section_id(b"a"), null, 0) == "ERR_INVALID_PARAM"


# -- the command line


def test_a_program_finds_the_modules_its_folder_and_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("value = 7\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import sys, beside, pyosaf.saCkpt\n"
        "from pyosaf import saAis, saCkpt, saEnumConst\n"
        "from pyosaf.saAis import eSaAisErrorT, SaNameT\n"
        "assert saCkpt is pyosaf.saCkpt\n"
        "codes = eSaAisErrorT.whatis(12)\n"
        "from pyosaf.saCkpt import *\n"
        "print(__name__, sys.argv[1:], codes, saAis.SA_TIME_BEGIN, saCkpt.SA_CKPT_CHECKPOINT_READ,\n"
        "      cast(create_string_buffer(b'x'), c_char_p).value, beside.value)\n"
    )
    done = run(program, "one", "two")
    assert done.stdout == "__main__ ['one', 'two'] SA_AIS_ERR_NOT_EXIST 0 1 b'x' 7\n", done.stderr


def test_a_missing_program_is_a_usage_error(tmp_path: Path) -> None:
    assert run(tmp_path / "none.py").returncode == 2


def test_a_programs_exit_code_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import sys\nsys.exit(3)\n")
    assert run(program).returncode == 3


def test_a_program_of_ones_own_installs_the_modules_and_keeps_what_is_there() -> None:
    program = (
        "import sys, types\n"
        "mine = sys.modules['pyosaf.saAis'] = types.ModuleType('pyosaf.saAis')\n"
        "from ckpt_client import pyosaf; pyosaf.install(); pyosaf.install()\n"
        "from pyosaf import saCkpt; import pyosaf.saAis\n"
        "assert sys.modules['pyosaf.saAis'] is mine and saCkpt.saCkptInitialize\n"
    )
    environment = {**os.environ, "PYTHONPATH": PATH}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
