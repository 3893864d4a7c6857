"""Build OpenSAF's package `pyosaf`, as far as the checkpoint service goes."""

import ctypes
from types import FunctionType, ModuleType
from typing import Any, Final

from ckpt_client.module_shim import make_module
from ckpt_client.pyosaf import checkpoints, enumerations, library, read_write, sections, structures, types

CTYPES: Final[dict[str, Any]] = {
    name: value for name, value in vars(ctypes).items() if not name.startswith("_")
}
"""The names that a program gets from `import *` of `ctypes`: pyosaf's modules export them too."""

FUNCTIONS: Final[dict[str, Any]] = {
    name: value
    for part in (library, checkpoints, sections, read_write)
    for name, value in vars(part).items()
    if name.startswith("saCkpt") and isinstance(value, FunctionType)
}
"""The 29 functions: 24 of B.02.02, 5 of OpenSAF's B.02.03."""


def _offered(part: ModuleType) -> dict[str, Any]:
    """Return the names of the interface, those of the SA Forum and of OpenSAF."""
    beginnings = ("Sa", "sa", "eSa", "SA_", "marshal", "unmarshal", "create", "BYREF")
    return {name: value for name, value in vars(part).items() if name.startswith(beginnings)}


def make_modules() -> dict[str, ModuleType]:
    """Return the modules by the names under which OpenSAF's programs import them."""
    enumerating = {
        "Enumeration": enumerations.Enumeration,
        "EnumException": enumerations.EnumException,
        "Const": enumerations.Const,
    }
    common = {
        **CTYPES,
        "Enumeration": enumerations.Enumeration,
        "Const": enumerations.Const,
        **_offered(types),
    }
    package = ModuleType("pyosaf", "OpenSAF's Python binding, as far as the checkpoint service goes.")
    package.__path__ = []
    parts = {
        "saEnumConst": make_module("pyosaf.saEnumConst", "Enumerations and constants.", enumerating),
        "saAis": make_module("pyosaf.saAis", "What all services share.", common),
        "saCkpt": make_module(
            "pyosaf.saCkpt", "The checkpoint service.", {**common, **_offered(structures), **FUNCTIONS}
        ),
    }
    vars(package).update(parts)
    return {"pyosaf": package, **{f"pyosaf.{name}": part for name, part in parts.items()}}
