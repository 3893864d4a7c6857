"""The entry point of `ckptd` and `python -m ckptd`."""

import sys

from ckptd import __version__


def main() -> int:
    """Run a daemon; see `ckptd.runtime.command`. `--version` is answered without importing the daemon."""
    if sys.argv[1:] == ["--version"]:
        print(f"ckptd {__version__}")
        return 0
    from ckptd.runtime.command import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
