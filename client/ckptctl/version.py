"""Which version this is. It imports nothing that a command needs: to say it is to take no time."""


def print_version() -> None:
    """One line on stdout."""
    from importlib.metadata import PackageNotFoundError, version  # Twenty times what the rest here costs.

    try:
        print(f"ckptctl {version('ckptd')}")
    except PackageNotFoundError:
        print("ckptctl, not installed as a package")
