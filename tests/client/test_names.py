"""The names that a module offers: the same to a program, to a type checker and to completion in a shell."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import aspCheckpoint
import ckpt_client
from ckpt_client import asp, errors, ha, pyosaf, saf
from ckpt_client.asp.names import SAF_CONSTANTS, SECTION_IDS
from ckpt_client.errors import ERROR_CLASSES
from ckpt_client.pyosaf.enumerations import Enumeration, constants_of
from ckpt_protocol import constants
from ckpt_protocol.codes import SaAisErrorT
from ckptd import testing

MODULES = (ckpt_client, errors, ha, saf, asp, pyosaf, aspCheckpoint, testing)
CODES = [code for code in SaAisErrorT if code != SaAisErrorT.SA_AIS_OK]


def names_written_in(module: ModuleType) -> set[str]:
    """The names that a type checker finds in a module, without those of `import *`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text("utf-8"))):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=imported):
                found |= {alias.asname or alias.name for alias in imported}
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found.add(name)
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_module_lists_its_public_names_and_no_other(module: ModuleType) -> None:
    assert dir(module) == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in dir(module) if not hasattr(module, name)] == []


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_type_checker_finds_every_public_name(module: ModuleType) -> None:
    """The codes and the errors were put into the modules at run time, so a checker accepted any name."""
    assert set(module.__all__) <= names_written_in(module) | set(constants.__all__)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_a_name_that_does_not_exist_is_refused(module: ModuleType) -> None:
    with pytest.raises(AttributeError, match="ANY_SLIP"):
        module.ANY_SLIP  # noqa: B018


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_an_error_class_that_names_it(code: SaAisErrorT) -> None:
    kind = ERROR_CLASSES[code]
    assert inspect.getdoc(kind) == f"{code.name} ({code.value})."
    assert getattr(saf, kind.__name__) is getattr(errors, kind.__name__) is kind
    assert names_written_in(errors) >= {kind.__name__}


def test_there_is_no_error_class_without_a_code() -> None:
    written = {name for name in names_written_in(errors) if name.startswith("SaAisErr")}
    assert written - {"SaAisError", "SaAisErrorT"} == {kind.__name__ for kind in ERROR_CLASSES.values()}
    assert list(ERROR_CLASSES) == CODES


@pytest.mark.parametrize("code", SaAisErrorT)
def test_every_code_has_its_name_and_number(code: SaAisErrorT) -> None:
    assert getattr(saf, code.name) is code
    assert getattr(aspCheckpoint, code.name) == code
    assert type(getattr(aspCheckpoint, code.name)) is int, "as in ASP"


def test_asps_module_has_the_same_constants_as_asps_functions() -> None:
    expected = {**SAF_CONSTANTS, **SECTION_IDS}
    offered = {name: getattr(aspCheckpoint, name) for name in aspCheckpoint.__all__}
    assert {name: value for name, value in offered.items() if name.startswith("SA_")} == expected


def test_every_constant_of_the_interface_is_offered() -> None:
    assert sorted(constants.__all__) == [name for name in sorted(vars(constants)) if name.startswith("SA_")]


def test_names_that_are_imported_late_are_the_real_ones() -> None:
    for name, module in ckpt_client._LAZY.items():
        assert getattr(ckpt_client, name) is getattr(importlib.import_module(module), name)


def test_listing_the_names_imports_nothing() -> None:
    program = (
        "import sys, ckpt_client\n"
        "assert 'AsyncTable' in dir(ckpt_client)\n"
        "assert 'asyncio' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_an_enumeration_of_opensaf_lists_its_members() -> None:
    assert {"ONE", "TWO", "whatis"} <= set(dir(Enumeration(("ONE", "TWO"))))
    assert {"ONE"} <= set(dir(constants_of({"ONE": 1})))
