"""The part of an open checkpoint that changes its limits."""

import contextlib
from typing import Any

from ckpt_client.checkpoint.open_checkpoint import OpenCheckpoint, TableStep, lacks_active
from ckpt_client.errors import SaAisError
from ckpt_client.requests import resize_requests, table_requests
from ckpt_client.requests.resize_requests import Limits, limits_of
from ckpt_client.steps import Request, Steps
from ckpt_protocol import codes
from ckpt_protocol.body_codec import pack_body
from ckpt_protocol.messages import Kind


class ResizableCheckpoint(OpenCheckpoint):
    """An open checkpoint that can be resized, and that grows when it is opened if the program wants that."""

    def resize(self, limits: Limits) -> Steps[TableStep, None]:
        """Change the limits; None leaves one as it is."""
        yield from self._resize(limits, at_least=False)

    def _resize(self, limits: Limits, at_least: bool) -> Steps[TableStep, None]:
        try:
            payload = yield from self.ask(Kind.UPDATE, resize_requests.resize_body(limits, at_least))
            self.attributes = resize_requests.resized(self.attributes, payload)
        except SaAisError as error:
            raise self.failure("resize", error) from None

    @property
    def resized_text(self) -> str:
        """What to log after the open: the limits in force are others than those of the program; "" if not."""
        opening = self.opening
        if self.wants_to_grow:
            return f"checkpoint {opening.name.decode()!r} keeps its limits until this program leads it"
        asked = None if opening.grow else opening.attributes
        return resize_requests.resized_text(opening.name, asked, self.attributes)

    @property
    def wants_to_grow(self) -> bool:
        """Return True if the program opens it with `grow`, and a limit in force is smaller than its own."""
        wanted = self.opening.attributes
        if not self.opening.grow or wanted is None:
            return False
        pairs = zip(limits_of(self.attributes), limits_of(wanted), strict=True)
        return any(now < asked for now, asked in pairs)

    def open(self) -> Steps[Request, None]:
        """Open the checkpoint as the program did at first."""
        yield from super().open()
        if not self.wants_to_grow:
            return
        try:
            payload = yield from self._grow(resize_requests.resize_body(self._wanted_limits, at_least=True))
        except BaseException as error:
            if isinstance(error, SaAisError) and error.code == codes.ACCESS:
                return  # Another program leads it: this one resizes it when it leads.
            handle, self.handle, self.creation_id = self.handle, 0, 0
            with contextlib.suppress(SaAisError):
                yield Kind.CLOSE, handle, table_requests.EMPTY_BODY
            raise
        self.attributes = resize_requests.resized(self.attributes, payload)

    def grow_as_leader(self) -> Steps[TableStep, None]:
        """Resize it now that the program leads, if another leader refused that when it was opened."""
        if self.wants_to_grow:
            yield from self._resize(self._wanted_limits, at_least=True)

    @property
    def _wanted_limits(self) -> Limits:
        wanted = self.opening.attributes
        assert wanted is not None, "only an open with limits may grow a checkpoint"
        return limits_of(wanted)

    def _grow(self, body: bytes) -> Steps[Request, Any]:
        try:
            return (yield Kind.UPDATE, self.handle, body)
        except SaAisError as error:
            if not lacks_active(error) or not self.may_activate():
                raise
        yield Kind.ACTIVE_SET, self.handle, pack_body([True])
        return (yield Kind.UPDATE, self.handle, body)
