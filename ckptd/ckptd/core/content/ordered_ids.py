"""Section ids in byte order, with each change in logarithmic time.

A checkpoint of a million sections was once sorted again for a page of an iteration whenever a section had
been created or deleted since the previous page. That took a second in which no other client was served. Here
the ids are in buckets of bounded length. They are added in portions, since sorting a million at once would
take such a second too.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator
from itertools import islice
from typing import Final

BUCKET_MAX: Final = 1_000
"""The most ids in a bucket; one that grows larger is halved."""


class OrderedIds:
    """Empty at first; `sort_some` adds the ids that exist already, `add` and `discard` what changes."""

    __slots__ = ("_buckets", "_lasts", "_missing")

    def __init__(self, section_ids: Iterable[bytes] = ()) -> None:
        self._buckets: list[list[bytes]] = []
        self._lasts: list[bytes] = []
        self._missing: Iterator[bytes] | None = iter(list(section_ids))

    def sort_some(self, existing: Container[bytes], count_max: int) -> bool:
        """Sort in up to `count_max` of the missing ids that still exist. Return True once none is missing."""
        if self._missing is not None:
            portion = list(islice(self._missing, count_max))
            for section_id in portion:
                if section_id in existing:
                    self.add(section_id)
            if len(portion) < count_max:
                self._missing = None
        return self._missing is None

    def add(self, section_id: bytes) -> None:
        """Insert an id at its position, unless it is there."""
        lasts = self._lasts
        if not lasts:
            self._buckets.append([section_id])
            lasts.append(section_id)
            return
        index = min(bisect_left(lasts, section_id), len(lasts) - 1)
        bucket = self._buckets[index]
        if section_id > bucket[-1]:
            bucket.append(section_id)
        else:
            at = bisect_left(bucket, section_id)
            if bucket[at] == section_id:
                return
            bucket.insert(at, section_id)
        lasts[index] = bucket[-1]
        if len(bucket) > BUCKET_MAX:
            half = len(bucket) // 2
            self._buckets.insert(index + 1, bucket[half:])
            del bucket[half:]
            lasts.insert(index, bucket[-1])

    def discard(self, section_id: bytes) -> None:
        """Remove an id, if it is there."""
        index = bisect_left(self._lasts, section_id)
        if index == len(self._lasts):
            return
        bucket = self._buckets[index]
        at = bisect_left(bucket, section_id)
        if bucket[at] != section_id:
            return
        del bucket[at]
        if bucket:
            self._lasts[index] = bucket[-1]
        else:
            del self._buckets[index], self._lasts[index]

    def after(self, section_id: bytes | None) -> Iterator[bytes]:
        """Yield the ids after this one, or all, in byte order. (Change nothing while you iterate.)"""
        index, at = 0, 0
        if section_id is not None:
            index = bisect_right(self._lasts, section_id)
            if index < len(self._buckets):
                at = bisect_right(self._buckets[index], section_id)
        for bucket in islice(self._buckets, index, None):
            yield from islice(bucket, at, None)
            at = 0
