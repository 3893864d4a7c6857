"""Memory that the library allocates for a program, until the program frees it by its address, as in C.

Source: SAF 3.7.3 (a read without a buffer), 3.6.1 (a generated id); R98, R132.
"""

import ctypes
from typing import Any


class Allocations:
    """Pieces of memory by their addresses. A piece that is never freed stays, as in C. Safe for threads."""

    def __init__(self) -> None:
        self._pieces: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._pieces)

    def allocate(self, content: bytes) -> int:
        """Return the address of a copy of `content`. A zero byte follows, so that it is a C string too."""
        piece = ctypes.create_string_buffer(content, len(content) + 1)
        address = ctypes.addressof(piece)
        self._pieces[address] = piece
        return address

    def free(self, address: int) -> bool:
        """Free a piece. Return False if there is none at this address."""
        return self._pieces.pop(address, None) is not None
