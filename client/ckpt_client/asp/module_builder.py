"""The modules `asp` (also `safplusCApi`), `aspMisc` and `misc`, made to be put into `sys.modules`."""

from types import ModuleType
from typing import Final

from ckpt_client.asp.functions import FUNCTIONS, STRICT_FUNCTIONS
from ckpt_client.asp.names import ERROR_NAMES, SAF_CONSTANTS, SECTION_IDS, error_string
from ckpt_client.asp.structures import STRUCTURES
from ckpt_client.errors import Error
from ckpt_client.module_shim import make_module

MODULE_NAMES: Final = ("asp", "safplusCApi", "aspMisc", "misc")


def make_modules(strict: bool = False) -> dict[str, ModuleType]:
    """Return the modules by the names under which ASP's programs import them."""
    structures = {kind.__name__: kind for kind in STRUCTURES}
    functions = STRICT_FUNCTIONS if strict else FUNCTIONS
    asp = make_module(
        "asp",
        "The SA Forum's constants, structures and functions.",
        {**SAF_CONSTANTS, **SECTION_IDS, **structures, **functions},
    )
    names = {"AspError": dict(ERROR_NAMES), "getErrorString": error_string}
    return {
        "asp": asp,
        "safplusCApi": asp,
        "aspMisc": make_module("aspMisc", "Names of the SA Forum's return codes.", names),
        "misc": make_module("misc", "The base of ASP's exceptions.", {"Error": Error}),
    }
