"""Run a program that was written for ASP unchanged: `python -m ckpt_client.asp program.py args...`.

The program finds the modules `asp` (also as `safplusCApi`), `aspMisc` and `misc` next to `aspCheckpoint`. Its
own folder is first on the path, as if it had been started directly. A program of your own calls `install()`
before it imports these modules.

`docs/asp.md` says what ASP did differently; `strict_table` keeps ASP's behaviour.
"""

import sys
from collections.abc import Sequence

from ckpt_client.module_shim import run_program

__all__ = ["install", "run"]

_installed: dict[str, object] = {}


def install(strict: bool = False) -> None:
    """Put ASP's modules in place for this process. A module that was imported under such a name stays.

    `aspCheckpoint.Table` then has handles that `asp`'s functions accept. With `strict` it does what ASP's own
    did, except where that crashed. Call this again to switch between the two.
    """
    import aspCheckpoint
    from ckpt_client.asp.module_builder import make_modules

    for name, module in make_modules(strict).items():
        if sys.modules.get(name) is _installed.get(name):
            _installed[name] = sys.modules[name] = module
    if strict:
        from ckpt_client.asp.strict_table import StrictTable

        aspCheckpoint.Table = StrictTable  # type: ignore[misc]
    else:
        from ckpt_client.asp.asp_table import AspTable

        aspCheckpoint.Table = AspTable  # type: ignore[misc]


def run(program: str, arguments: Sequence[str], strict: bool = False) -> None:
    """Run a program file as `__main__`, with ASP's modules in place."""
    install(strict)
    run_program(program, arguments)


def __dir__() -> list[str]:
    return sorted(__all__)
