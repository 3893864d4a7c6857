"""The modules `asp` (also `safplusCApi`), `aspMisc` and `misc`, made to be put into `sys.modules`."""

from types import ModuleType
from typing import Any, Final

from ckpt_client.asp.functions import FUNCTIONS, STRICT_FUNCTIONS
from ckpt_client.asp.names import ERROR_NAMES, SAF_CONSTANTS, SECTION_IDS, error_string
from ckpt_client.asp.structures import STRUCTURES
from ckpt_client.errors import Error

MODULE_NAMES: Final = ("asp", "safplusCApi", "aspMisc", "misc")


def _module(name: str, says: str, content: dict[str, Any]) -> ModuleType:
    module = ModuleType(name, says)
    vars(module).update(content)
    return module


def make_modules(strict: bool = False) -> dict[str, ModuleType]:
    """The modules, by the names under which ASP's programs import them."""
    structures = {kind.__name__: kind for kind in STRUCTURES}
    functions = STRICT_FUNCTIONS if strict else FUNCTIONS
    asp = _module(
        "asp",
        "The SA Forum's constants, structures and functions.",
        {**SAF_CONSTANTS, **SECTION_IDS, **structures, **functions},
    )
    names = {"AspError": dict(ERROR_NAMES), "getErrorString": error_string}
    return {
        "asp": asp,
        "safplusCApi": asp,
        "aspMisc": _module("aspMisc", "Names of the SA Forum's return codes.", names),
        "misc": _module("misc", "The base of ASP's exceptions.", {"Error": Error}),
    }
