"""The SA Forum's constants and the names of its codes, as ASP's modules offer them. Pure."""

from typing import Final

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
"""Every code, flag, time and enumeration by its name. (The two section ids are bytes: see SECTION_IDS.)"""

SECTION_IDS: Final[dict[str, bytes]] = {
    "SA_CKPT_DEFAULT_SECTION_ID": constants.SA_CKPT_DEFAULT_SECTION_ID,
    "SA_CKPT_GENERATED_SECTION_ID": constants.SA_CKPT_GENERATED_SECTION_ID,
}

ERROR_NAMES: Final[dict[int, str]] = {int(code): code.name for code in SaAisErrorT}


def error_string(code: int | str) -> str:
    """Return a code's name, or a text unchanged (`aspMisc.getErrorString`)."""
    return code if isinstance(code, str) else ERROR_NAMES.get(code, "UNKNOWN_ERROR_CODE")
