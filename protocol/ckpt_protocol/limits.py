"""Every limit of the protocol, by name. Sizes are in bytes, counts are counts.

A caller that exceeds one gets an answer with an error code. Nothing grows silently.
"""

from typing import Final

NAME_BYTES_MAX: Final = 2048
"""A checkpoint's name; a longer one is TOO_BIG (the same limit as for OpenSAF's extended names)."""

SECTION_ID_BYTES_MAX: Final = 65535
"""`SaCkptSectionIdT.idLen` is a uint16."""

SECTIONS_MAX: Final = 2**32 - 1
"""`maxSections` is a uint32."""

SECTION_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest `maxSectionSize` that has an effect: a section beyond it is NO_RESOURCES."""

SIZE_MAX: Final = 2**63 - 1
"""The largest offset or size that a caller may give; more is INVALID_PARAM."""

CALL_BYTES_MAX: Final = SECTION_BYTES_MAX + SECTION_ID_BYTES_MAX
"""The ids and data of one call together; more is NO_RESOURCES.

The largest section with the longest id fits.
"""

UPDATE_BODY_BYTES_MAX: Final = CALL_BYTES_MAX + 8 * 1024 * 1024
"""The body of an UPDATE: ids, data and their encoding (up to 28 bytes per operation).

A longer one is NO_RESOURCES. The client checks this before it sends anything; the active replica checks it as
well.
"""

BUILT_BYTES_MAX: Final = SECTION_BYTES_MAX
"""What the WRITE and PATCH operations of one update build, together; more is NO_RESOURCES.

Each of them builds its whole section again, however little it writes: 64 MiB take 50 ms (`bench.budget`).
"""

OPS_PER_UPDATE_MAX: Final = 10_000
"""Section operations in one update; more is NO_RESOURCES.

A node cannot split an update or a READ, and serves nothing else while it works on one. This many operations
take at most 50 ms (`python -m bench.budget`).
"""

FRAME_BYTES_MAX: Final = UPDATE_BODY_BYTES_MAX + 8 * 1024 * 1024
"""Header and body of one frame between a client and a node. A longer one ends its connection."""
OPS_PER_BATCH_MAX: Final = 1_000_000
"""Section operations in an update that the service makes: a weak batch, or expired sections."""

ANSWERS_PER_BATCH_MAX: Final = 1_000_000
"""Requests that one weak batch answers."""

READ_ELEMENTS_MAX: Final = 10_000
"""Sections in one READ; more is NO_RESOURCES.

It is the same number as for an update, for the same reason: see `OPS_PER_UPDATE_MAX`.
"""

CHUNK_SECTIONS_MAX: Final = 1_000_000
"""Sections in one CHUNK of a join."""

PEER_FRAME_BYTES_MAX: Final = FRAME_BYTES_MAX + 16 * 1024 * 1024
"""Header, route and body of one frame between nodes.

Any legal request fits, together with what a node adds to it.
"""

SMALL_REQUEST_BYTES_MAX: Final = 4096
"""The body of a request that names no checkpoint and carries no data (ATTACH, CLOSE, PING, ...)."""

REFUSAL_CHARS_MAX: Final = 1_000
"""Characters in the text of a refusal.

A character takes at most four bytes, so the text fits into `SMALL_REQUEST_BYTES_MAX`.
"""

UNATTACHED_BODY_BYTES_MAX: Final = SMALL_REQUEST_BYTES_MAX
"""The body of any request on a stream whose session is not attached yet. A longer one ends its connection.

ATTACH, PING, DESCRIBE and OPERATE need no more.
"""

NAMING_REQUEST_BYTES_MAX: Final = 128 * 1024
"""The body of OPEN, UNLINK and ITERATE: a name or a section id.

One that is too long still fits, so that it can be answered with the right code.
"""

TRACK_BYTES_MAX: Final = 768
"""The body of TRACK. Many of them wait at a node at the same time, so their size is limited, too."""

TRACK_PREFIX_BYTES_MAX: Final = 512
"""The prefix of section ids in a TRACK. A client that follows a longer one asks for its beginning."""

HEARTBEAT_BYTES_MAX: Final = 16 * 1024
"""The body of a heartbeat.

It lists up to `NODES_MAX` nodes that the sender hears, and as many in each of its other lists.
"""

VIEW_BYTES_MAX: Final = 1024 * 1024
"""The body of a vote, of COLLECT or of DECIDED: each holds at most one view."""

URLS_PER_NODE_MAX: Final = 16
"""Addresses for clients that one node announces."""

URL_BYTES_MAX: Final = 512
"""One such address."""

TEXT_BYTES_MAX: Final = 4096
"""A text for people in a refusal or an answer."""

FIRST_FRAME_BYTES_MAX: Final = 4096
"""A frame of the first exchange.

This is the most that an unauthenticated connection can make us hold.
"""

DATAGRAM_BYTES_MAX: Final = 60_000
"""A frame that travels in a UDP datagram. A larger answer is TOO_BIG: use TCP."""

CLUSTER_NAME_BYTES_MAX: Final = 255
KEY_BYTES_MIN: Final = 16
"""A cluster's key.

Anyone who recorded one handshake can try keys on their own machine. They will find a word, but not 16 random
bytes.
"""

NODE_ID_BYTES_MAX: Final = 64
NODES_MAX: Final = 64

HELLO_DATAGRAM_BYTES: Final = 512
"""A HELLO over UDP is padded to this size.

WELCOME and REFUSED are never longer than the HELLO that they answer. So an attacker who forges a sender
address cannot make us send more to that address than the attacker sends. WELCOME has about 120 bytes.
"""

INCARNATION_MAX: Final = 2**63 - 1
"""The number of one start of a daemon: the time at which it began, in ns since 1970, or more.

2^63 ns are reached in 2262.
"""

FAULTS_MAX: Final = 256
"""Stops of nodes that one node remembers and reports."""

ADVERTISED_POSITIONS_MAX: Final = 32
"""Asynchronous checkpoints that one heartbeat reports on."""

EPOCH_MAX: Final = 2**23
"""The highest epoch that we accept from another node.

A creation id has 24 bits for the epoch, so there is room left for the epochs that follow.
"""

SEQ_MAX: Final = 2**40 - 1
"""The highest seq of an update or of a directory operation: a creation id has 40 bits for it."""

VERSION_BYTES: Final = 24
"""A section's version: creation id, epoch, and position. Clients compare it and nothing else."""

LEADER_TTL_NS_MIN: Final = 100_000_000
LEADER_TTL_NS_MAX: Final = 3_600_000_000_000
"""How long a leadership may last without a renewal: 0.1 s to 1 h."""

LEADER_NAME_BYTES_MAX: Final = 64
LEADER_HOST_BYTES_MAX: Final = 255
PID_MAX: Final = 2**32 - 1
"""What a program that wants to lead says of itself."""

WAITING_TO_LEAD_MAX: Final = 100
"""Programs that wait to lead one checkpoint; one more is NO_RESOURCES.

All of them travel in each change of the queue.
"""

ENDED_LEADERSHIPS_MAX: Final = 10
"""Leaderships of one checkpoint that have ended and are remembered."""

LEADERSHIP_BYTES_MAX: Final = 64 * 1024
"""Who leads, who waits and who led, packed. It fits in with every limit above."""

FORMER_LIMITS_MAX: Final = 16
"""Former limits of one checkpoint that a program may still open it with, after resizes.

Those of its creation are always among them; of the others, the directory forgets the oldest.
"""

PAGE_BYTES_MAX: Final = 1024 * 1024
"""About how much one page of an iteration carries. A page has at least one section."""

WITHDRAWN_MAX: Final = 400
"""Requests that one PING may name. The node gives them up if they only wait."""

ANSWERS_MAX: Final = 65_536
"""Answers of one session that are remembered. A client that never trims them gets NO_RESOURCES."""

ANSWERS_BYTES_MAX: Final = 4 * 1024 * 1024
"""What the remembered answers of one session may take at one checkpoint; more is NO_RESOURCES as well.

Each answer counts as its body plus `ANSWER_BYTES`. An ordinary one has a body of two bytes, so `ANSWERS_MAX`
is reached first. One that lists 10,000 generated ids has 100 KB. Without this limit, a client that never
trimmed its answers made a node keep 117 MB, and no join could carry them.
"""

PORTION_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest value allowed for `chunk_bytes` and `weak_batch_bytes`.

A portion and the largest section after it fit into one frame.
"""

ANSWER_BYTES: Final = 60
"""About what an answer costs in addition to its body on the wire; in memory it costs twice that."""
