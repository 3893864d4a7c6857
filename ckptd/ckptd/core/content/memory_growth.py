"""How much memory an update will build and add, computed before any of it is allocated.

A WRITE or PATCH names an offset: 15 bytes of it can ask for a section of 64 MiB, and a hundred of them for
6.4 GB. So the active replica adds up here what an update asks for, and refuses what is too much while nothing
has been allocated. Operations that the checkpoint does not allow are skipped: `sections.apply` refuses them,
with their index.
"""

from typing import Final

from ckpt_protocol import codes
from ckpt_protocol.errors import RequestError
from ckpt_protocol.limits import BUILT_BYTES_MAX, OPS_PER_UPDATE_MAX
from ckpt_protocol.messages import Op
from ckpt_protocol.parse_updates import Ops
from ckptd.core.content.sections import SECTION_OVERHEAD_BYTES, SectionTable

_PATCHES: Final = (Op.WRITE, Op.PATCH)
_ABSENT: Final = -SECTION_OVERHEAD_BYTES
"""The size of a section that does not exist: a new one takes `SECTION_OVERHEAD_BYTES` in addition to its
content."""


def growth_bound(ops: Ops, body_bytes: int, table: SectionTable) -> int:
    """Return the most bytes that this update, whose body has `body_bytes`, can add to the replica.

    Raises: RequestError NO_RESOURCES if it has too many operations or builds too many bytes.
    """
    count = len(ops)
    if count > OPS_PER_UPDATE_MAX:
        raise RequestError(
            codes.NO_RESOURCES, f"{count} operations in one update; at most {OPS_PER_UPDATE_MAX} are allowed"
        )
    built = count * table.section_bytes_cap
    if built > BUILT_BYTES_MAX:  # Else the sections that it writes into are small enough: the common case.
        built = 0
        for op in ops:
            if op[0] in _PATCHES:
                built = _walk(ops, table)[1]
                break
    return body_bytes + count * SECTION_OVERHEAD_BYTES + built


def growth_of(ops: Ops, table: SectionTable) -> int:
    """Return how many bytes this update will add to the replica; negative if it frees memory."""
    return _walk(ops, table)[0]


def _walk(ops: Ops, table: SectionTable) -> tuple[int, int]:
    """Return (bytes added, bytes of the sections that WRITE and PATCH build). Raises: RequestError."""
    existing, cap = table.sections, table.section_bytes_cap
    sizes: dict[bytes, int] = {}
    added = built = 0
    for index, op in enumerate(ops):
        kind, section_id = op[0], op[1]
        size = sizes.get(section_id)
        if size is None:
            section = existing.get(section_id)
            size = _ABSENT if section is None else len(section.content)
        if kind in _PATCHES:
            content_bytes = len(op[3])
            new = max(size, 0)
            if content_bytes:
                new = max(new, op[2] + content_bytes)
            if new > cap:
                continue  # `sections.apply` refuses it: more than a section may have.
            built += new
        elif kind in (Op.OVERWRITE, Op.PUT):
            new = len(op[2])
        elif kind == Op.CREATE:
            new = len(op[3])
        elif kind in (Op.DELETE, Op.REMOVE):
            new = _ABSENT
        else:
            continue
        added += new - size
        if section_id or kind != Op.CREATE:  # (Each CREATE without an id makes a section of its own.)
            sizes[section_id] = new
        if built > BUILT_BYTES_MAX:
            text = f"the sections that this update writes to exceed {BUILT_BYTES_MAX} bytes in total"
            raise RequestError(codes.NO_RESOURCES, text, index)
    return added, built
