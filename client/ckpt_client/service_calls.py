"""The blocking calls that concern no open table, or one by its handle."""

from typing import Any

from ckpt_client import calls
from ckpt_protocol.codec import pack_body
from ckpt_protocol.messages import Kind

_DEFAULT_NS = int(calls.TIMEOUT_S * 1e9)


class ServiceCalls:
    """What a connection is asked by programs that have no table for it."""

    def describe(self, what: str, timeout: float | None = None) -> Any:
        """What the node knows: "cluster" (a dict) or "checkpoints" (a list). Raises: SaAisError."""
        return self.call(Kind.DESCRIBE, 0, pack_body([what]), calls.timeout_in_ns(timeout, _DEFAULT_NS))

    def unlink(self, name: calls.Key, timeout: float | None = None) -> None:
        """Free a checkpoint's name, whichever checkpoint has it now; the data goes with the last table that
        has it open.

        Raises: SaAisError.
        """
        self.call(Kind.UNLINK, 0, calls.unlink_body(name), calls.timeout_in_ns(timeout, _DEFAULT_NS))

    def status(self, handle: int, timeout: float | None = None) -> calls.Status:
        """The state of an open checkpoint. Raises: SaAisError."""
        timeout_ns = calls.timeout_in_ns(timeout, _DEFAULT_NS)
        return calls.status_of(self.call(Kind.STATUS, handle, calls.EMPTY_BODY, timeout_ns))

    def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Ask, wait, and return the answer's payload. Raises: SaAisError."""
        raise NotImplementedError
