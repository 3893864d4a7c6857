"""The version that an update gives to the sections that it changes (ADR 30)."""

from typing import Final

INDEX_IN_BATCH_BITS: Final = 24
"""The bits of a version that count the updates of one weak batch. A batch has far fewer of them."""

VERSION_BYTES: Final = 16
"""The bytes of a version between nodes."""

SEQ_BITS: Final = 40
"""The bits of the seq in a generated id of eight bytes; the rest are the epoch's."""

_EPOCH_SHIFT: Final = SEQ_BITS + INDEX_IN_BATCH_BITS


def version_of_change(epoch: int, seq: int, index_in_batch: int = 0) -> int:
    """Return the version of the sections that an update changes: a number below 2^128.

    With the creation id it is never the version of another value of a section of the same name. The epoch is
    in it because an asynchronous checkpoint that lost its last updates uses their seqs again. The index is in
    it because the updates of one weak batch share a seq.
    """
    return (epoch << _EPOCH_SHIFT) | (seq << INDEX_IN_BATCH_BITS) | index_in_batch
