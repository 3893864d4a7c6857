"""The version of `ckptctl`. This module imports nothing that a command needs, so that it answers at once."""


def print_version() -> None:
    """Print the version in one line on stdout."""
    from importlib.metadata import PackageNotFoundError, version  # Takes 20 times as long as the rest here.

    try:
        print(f"ckptctl {version('ckptd')}")
    except PackageNotFoundError:
        print("ckptctl (not installed as a package)")
