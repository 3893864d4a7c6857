"""The only asyncio: one node's core over real sockets, clocks and disks.

Every rule lives in `ckptd.core`; what is here carries bytes to it and from it.
"""
