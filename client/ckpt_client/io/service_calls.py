"""The blocking calls that concern no open table, or an open table by its handle."""

from typing import Any

from ckpt_client.session import table_requests
from ckpt_protocol.codec import pack_body
from ckpt_protocol.messages import Kind

_DEFAULT_NS = int(table_requests.TIMEOUT_S * 1e9)


class ServiceCalls:
    """The calls of a connection for programs that have no `Table`."""

    def describe(self, what: str, timeout: float | None = None) -> Any:
        """Return what the node knows: "cluster" (a dict) or "checkpoints" (a list). Raises: SaAisError."""
        return self.call(
            Kind.DESCRIBE, 0, pack_body([what]), table_requests.timeout_in_ns(timeout, _DEFAULT_NS)
        )

    def unlink(self, name: table_requests.Key, timeout: float | None = None) -> None:
        """Free a checkpoint's name, whichever checkpoint has it now.

        The data goes when the last table that has the checkpoint open is closed. Raises: SaAisError.
        """
        self.call(
            Kind.UNLINK,
            0,
            table_requests.unlink_body(name),
            table_requests.timeout_in_ns(timeout, _DEFAULT_NS),
        )

    def status(self, handle: int, timeout: float | None = None) -> table_requests.Status:
        """Return the state of an open checkpoint. Raises: SaAisError."""
        timeout_ns = table_requests.timeout_in_ns(timeout, _DEFAULT_NS)
        return table_requests.status_of(self.call(Kind.STATUS, handle, table_requests.EMPTY_BODY, timeout_ns))

    def call(self, kind: int, handle: int, body: bytes, timeout_ns: int) -> Any:
        """Make a request, wait, and return the answer's payload. Raises: SaAisError."""
        raise NotImplementedError
