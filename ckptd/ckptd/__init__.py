"""ckptd: the SA Forum AIS Checkpoint Service as a distributed daemon.

`core` contains every rule and does no I/O. `runtime` runs it over sockets, `sim` in virtual time. See
docs/ARCHITECTURE.md.
"""

__version__ = "0.1.0"
