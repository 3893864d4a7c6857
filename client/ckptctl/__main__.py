"""The `ckptctl` command. An error prints one line and ends with exit code 1, a wrong command line with 2.

`status --check` has exit codes of its own: see `render.Health`.
"""

import io
import os
import sys

from ckptctl.version import print_version


def main() -> None:
    """Run one command. `--version` is answered without importing the commands."""
    if sys.argv[1:] == ["--version"]:
        print_version()
        return
    from ckpt_client import CheckpointError, SaAisError
    from ckpt_protocol.codes import code_name
    from ckptctl.commands import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Do not fail because of a name for which this terminal has no characters.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="ckptctl")
    except CheckpointError as error:
        _fail(f"{error.text} ({code_name(error.code)})")
    except SaAisError as error:
        _fail(str(error))
    except BrokenPipeError:
        # The reader of our output has seen enough; the interpreter must not report this again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        _fail(str(error))


def _fail(text: str) -> None:
    print(f"ckptctl: {' '.join(text.split())}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
