"""Lists what programs may use of the client: every public name with its signature, one a line.

`python -m tests.client.public_surface > tests/client/public_surface.txt` writes the list anew.
"""

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_origin

from ckpt_client.asp.asp_table import AspTable
from ckpt_client.asp.module_builder import make_modules as make_asp_modules
from ckpt_client.asp.strict_table import StrictTable
from ckpt_client.pyosaf.modules import CTYPES
from ckpt_client.pyosaf.modules import make_modules as make_pyosaf_modules

MODULES = (
    "ckpt_client",
    "ckpt_client.ha",
    "ckpt_client.saf",
    "ckpt_client.asp",
    "ckpt_client.pyosaf",
    "aspCheckpoint",
)
OURS = ("ckpt_client", "ckpt_protocol", "aspCheckpoint")
SPECIAL = (
    *("__aenter__", "__aexit__", "__aiter__", "__anext__", "__bool__", "__contains__", "__delitem__"),
    *("__enter__", "__exit__", "__getitem__", "__iter__", "__len__", "__next__", "__setitem__", "__str__"),
)
"""The methods that programs call through the language. (Python adds others, and more in each version.)"""


def modules() -> dict[str, ModuleType]:
    """The client's public modules, and those that it makes for programs of ASP and of OpenSAF."""
    strict = {f"{name} (--strict)": module for name, module in make_asp_modules(strict=True).items()}
    found = {name: importlib.import_module(name) for name in MODULES}
    return {**found, **make_asp_modules(), **strict, **make_pyosaf_modules()}


def names_of(module: ModuleType) -> list[str]:
    """The names that a module offers."""
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    made = module.__spec__ is None
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and (
            CTYPES.get(name, module) is not value
            if made
            else getattr(value, "__module__", "") == module.__name__
        )
    )


def signature_of(function: Any) -> str:
    """A function's signature. Types come without their modules; a default without a literal is `...`."""
    try:
        text = str(inspect.signature(function))
    except (TypeError, ValueError):
        return "(?)"
    text = re.sub(r"<object object at 0x\w+>", "...", text)
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # a type that is written as text
    return re.sub(r"\b(?:ckpt_client|ckpt_protocol)(?:\.[a-z_]+)*\.(?=\w)", "", text)


def bases_of(kind: type) -> str:
    """The bases that programs may rely on: those of Python, and those of errors."""
    lasting = [
        base for base in kind.__bases__ if not base.__module__.startswith(OURS) or issubclass(base, Exception)
    ]
    return ", ".join(base.__name__ for base in lasting if base is not object)


def members_of(kind: type) -> Iterator[tuple[str, str]]:
    """The public members of a class with their signatures, inherited ones too, but none of Python's own."""
    if issubclass(kind, enum.Enum):
        yield from ((member.name, f" = {member.value!r}") for member in kind)
        return
    for name in sorted(dir(kind)):
        owner = next((base for base in kind.__mro__ if name in vars(base)), object)
        if (name.startswith("_") and name not in SPECIAL) or not owner.__module__.startswith(OURS):
            continue
        value = inspect.getattr_static(kind, name)
        if isinstance(value, property):
            returned = signature_of(value.fget).partition(" -> ")[2]
            yield name, f": {returned}{'' if value.fset is None else ' (settable)'}"
        elif isinstance(value, classmethod | staticmethod):
            bound = getattr(kind, name)
            how = ", async" if inspect.iscoroutinefunction(bound) else ""
            yield name, f"{signature_of(bound)} ({type(value).__name__}{how})"
        elif inspect.isfunction(value):
            yield name, f"{signature_of(value)}{' (async)' if inspect.iscoroutinefunction(value) else ''}"
        else:
            yield name, ""


def lines_of_class(name: str, kind: type) -> Iterator[str]:
    """A class's line, and one for each public member."""
    constructor = "" if issubclass(kind, enum.Enum) else f" {signature_of(kind)}"
    yield f"class {name}({bases_of(kind)}){constructor}"
    yield from (f"    {member}{what}" for member, what in members_of(kind))


def lines() -> Iterator[str]:
    """One line for each name, and one for each public member of a class."""
    for module_name, module in modules().items():
        yield f"# {module_name}"
        for name in names_of(module):
            value = getattr(module, name)
            if isinstance(value, type):
                yield from lines_of_class(name, value)
            elif get_origin(value) is not None:  # Python's versions call an alias with other arguments
                yield f"{name}: alias"
            elif callable(value):
                yield f"{name}{signature_of(value)}"
            elif isinstance(value, int | str | bytes | None):
                yield f"{name} = {value!r}"
            else:
                yield f"{name}: {type(value).__name__}"
    yield "# what `ckpt_client.asp.install` makes of `aspCheckpoint.Table`"
    yield from lines_of_class("AspTable", AspTable)
    yield from lines_of_class("StrictTable", StrictTable)


if __name__ == "__main__":
    print("\n".join(lines()))
