"""Programs that were written for ASP run as they are: `python -m ckpt_client.asp program.py args...`.

The program finds the modules `asp` (also as `safplusCApi`), `aspMisc` and `misc` beside `aspCheckpoint`, and
its own folder first on the path, as if it had been started by itself. A program of one's own calls
`install()` before it imports them.

`docs/asp.md` tells what ASP did otherwise; with `strict` that is kept.
"""

import sys
from collections.abc import Sequence

from ckpt_client.module_shim import run_program

_installed: dict[str, object] = {}


def install(strict: bool = False) -> None:
    """Put ASP's modules in place for this process. A module of that name that is imported already stays.

    `aspCheckpoint.Table` then has handles that are good for `asp`'s functions; with `strict` it does, as far
    as that was no crash, what ASP's own did. Calling it again changes between the two.
    """
    import aspCheckpoint
    from ckpt_client.asp.module_builder import make_modules

    for name, module in make_modules(strict).items():
        if sys.modules.get(name) is _installed.get(name):
            _installed[name] = sys.modules[name] = module
    if strict:
        from ckpt_client.asp.strict import StrictTable

        aspCheckpoint.Table = StrictTable  # type: ignore[misc]
    else:
        from ckpt_client.asp.table import AspTable

        aspCheckpoint.Table = AspTable  # type: ignore[misc]


def run(program: str, arguments: Sequence[str], strict: bool = False) -> None:
    """Run a program file as `__main__`, with ASP's modules in place."""
    install(strict)
    run_program(program, arguments)
