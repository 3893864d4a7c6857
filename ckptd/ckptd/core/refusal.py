"""Refusals, as parsing and the core raise them (see `ckpt_protocol.refusal`)."""

from ckpt_protocol.refusal import Refusal

__all__ = ["Refusal"]
