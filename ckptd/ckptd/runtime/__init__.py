"""Runs one node's core over real sockets, clocks and disks. The daemon uses asyncio only in this package.

Every rule is in `ckptd.core`; the runtime carries bytes to it and from it.
"""
