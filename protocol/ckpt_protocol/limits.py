"""Every limit of the protocol, with its name. Sizes are bytes, counts are counts.

Reaching one is an answer with a code that the caller sees, never silent growth.
"""

from typing import Final

NAME_BYTES_MAX: Final = 2048
"""A checkpoint's name; longer is TOO_BIG (as OpenSAF's extended names)."""

SECTION_ID_BYTES_MAX: Final = 65535
"""`SaCkptSectionIdT.idLen` is a uint16."""

SECTIONS_MAX: Final = 2**32 - 1
"""`maxSections` is a uint32."""

SECTION_BYTES_MAX: Final = 64 * 1024 * 1024
"""The most that `maxSectionSize` is honoured for: larger sections are NO_RESOURCES."""

SIZE_MAX: Final = 2**63 - 1
"""Offsets and sizes as given by a caller; more is INVALID_PARAM."""

CALL_BYTES_MAX: Final = SECTION_BYTES_MAX + SECTION_ID_BYTES_MAX
"""Ids and data of one call together: the largest section with the longest id fits. More is NO_RESOURCES."""

UPDATE_BODY_BYTES_MAX: Final = CALL_BYTES_MAX + 8 * 1024 * 1024
"""The body of an UPDATE: ids, data and what stands around them (up to 28 bytes an operation).

A client refuses a longer one with NO_RESOURCES before it sends anything, and so does the active replica.
"""

BUILT_BYTES_MAX: Final = SECTION_BYTES_MAX
"""What the WRITE and PATCH operations of one update build, together; more is NO_RESOURCES.

Each builds its whole section anew, whatever little it writes: 64 MiB take 50 ms (`bench.budget`)."""

OPS_PER_UPDATE_MAX: Final = 10_000
"""Section operations in one update; more is NO_RESOURCES.

Neither an update nor a READ can be split: while a node does one, it serves nobody else. This many take 50 ms
at the most (`python -m bench.budget`)."""

FRAME_BYTES_MAX: Final = UPDATE_BODY_BYTES_MAX + 8 * 1024 * 1024
"""Header and body of one frame between a client and a node; a longer one ends its connection."""
OPS_PER_BATCH_MAX: Final = 1_000_000
"""Section operations in an update of the service's own: a weak batch, or expired sections."""

ANSWERS_PER_BATCH_MAX: Final = 1_000_000
"""Requests that one weak batch answers."""

READ_ELEMENTS_MAX: Final = 10_000
"""Sections in one READ; more is NO_RESOURCES. It is as long as an update may be: see `OPS_PER_UPDATE_MAX`."""

CHUNK_SECTIONS_MAX: Final = 1_000_000
"""Sections in one CHUNK of a join."""

PEER_FRAME_BYTES_MAX: Final = FRAME_BYTES_MAX + 16 * 1024 * 1024
"""Header, route and body of one frame between nodes: room for any legal request, and what a node adds to
it."""

SMALL_REQUEST_BYTES_MAX: Final = 4096
"""The body of a request that names no checkpoint and carries no data (ATTACH, CLOSE, PING, ...)."""

REFUSAL_CHARS_MAX: Final = 1_000
"""A refusal's text, in characters of at most four bytes: so it is within `SMALL_REQUEST_BYTES_MAX`."""

UNATTACHED_BODY_BYTES_MAX: Final = SMALL_REQUEST_BYTES_MAX
"""The body of any request on a stream whose session is not attached yet: ATTACH, PING, DESCRIBE and OPERATE
need no more. A longer one ends its connection."""

NAMING_REQUEST_BYTES_MAX: Final = 128 * 1024
"""The body of OPEN, UNLINK and ITERATE: a name or a section id, also one that is too long and is answered
so."""

TRACK_BYTES_MAX: Final = 256
"""The body of TRACK. Many of them wait at a node at one time, so their size is limited too."""

HEARTBEAT_BYTES_MAX: Final = 16 * 1024
"""The body of a heartbeat: `NODES_MAX` nodes that are heard, and as many in each other list."""

VIEW_BYTES_MAX: Final = 1024 * 1024
"""The body of a vote, COLLECT or DECIDED: each holds at most one view."""

URLS_PER_NODE_MAX: Final = 16
"""Addresses for clients that one node tells of."""

URL_BYTES_MAX: Final = 512
"""One such address."""

TEXT_BYTES_MAX: Final = 4096
"""A text for people in a refusal or an answer."""

FIRST_FRAME_BYTES_MAX: Final = 4096
"""A frame of the first exchange: all that a stranger can make us hold."""

DATAGRAM_BYTES_MAX: Final = 60_000
"""A frame that travels in a UDP datagram; a larger answer is TOO_BIG: use TCP."""

CLUSTER_NAME_BYTES_MAX: Final = 255
KEY_BYTES_MIN: Final = 16
"""A cluster's key. Whoever saw one handshake can try keys on his own machine: a word is found, 16 random
bytes are not."""

NODE_ID_BYTES_MAX: Final = 64
NODES_MAX: Final = 64

HELLO_DATAGRAM_BYTES: Final = 512
"""A HELLO over UDP is padded to this, since WELCOME and REFUSED are never longer than what they answer: who
sends a datagram from a forged address gets no more sent there than it sends itself. WELCOME has about 120."""

INCARNATION_MAX: Final = 2**63 - 1
"""A start of a daemon: the ns since 1970 when it began, or more. 2^63 ns are reached in 2262."""

FAULTS_MAX: Final = 256
"""Stops of nodes that one node remembers and tells of."""

UNACKNOWLEDGED_MAX: Final = 32
"""Asynchronous checkpoints that one heartbeat tells of."""

EPOCH_MAX: Final = 2**23
"""An epoch that another node tells of. A creation id holds 24 bits of it: the rest is room for what
follows."""

SEQ_MAX: Final = 2**40 - 1
"""An update's or a directory operation's place in its order: so many bits of a creation id are for it."""

PAGE_BYTES_MAX: Final = 1024 * 1024
"""About what one page of an iteration carries, at the least one section."""

WITHDRAWN_MAX: Final = 400
"""Requests that one PING may name, to be given up by the node where they only wait."""

ANSWERS_MAX: Final = 65_536
"""Answers of one session that are remembered; a client that trims none gets NO_RESOURCES."""

ANSWERS_BYTES_MAX: Final = 4 * 1024 * 1024
"""What those may take at one checkpoint, each with `ANSWER_BYTES` beside its body: the same happens.

An ordinary answer is two bytes, so that `ANSWERS_MAX` is reached first. One that lists 10,000 generated ids
has 100 KB. Without this limit a client that trimmed none made a node keep 117 MB, and no join could carry
them."""

PORTION_BYTES_MAX: Final = 4 * 1024 * 1024
"""The most that `chunk_bytes` and `weak_batch_bytes` may be set to: a portion, and the largest section behind
it, fit into a frame."""

ANSWER_BYTES: Final = 60
"""About what an answer costs beside its body, on the wire and (twice that) in memory."""
