"""The 150 requirements that the SA Forum's text comes to, each in a line of our own.

Beside each is the section of SAI-AIS-CKPT-B.01.01 that it rests on; "B.02" where only that edition has it,
"Overview" for SAI-Overview-B.02.01, "silent" where the text says nothing and implementations had to choose.
"""

from typing import Final, NamedTuple


class Requirement(NamedTuple):
    """What is asked, in short, and where."""

    text: str
    section: str


def _table(*rows: tuple[str, str]) -> dict[str, Requirement]:
    return {f"R{number}": Requirement(*row) for number, row in enumerate(rows, 1)}


REQUIREMENTS: Final = _table(
    # -- rules of all calls
    (
        "Handles live from the call that gives them to the one that ends them; any other is BAD_HANDLE",
        "3.4 to 3.7",
    ),
    ("Each Initialize and each open gives a handle of its own", "3.5.1"),
    ("TIMEOUT leaves the outcome open; what may have been done is never TRY_AGAIN", "3.4 to 3.7"),
    ("TRY_AGAIN promises that nothing was done", "3.4 to 3.7"),
    ("LIBRARY, NO_MEMORY and NO_RESOURCES each mean what they say", "3.4 to 3.7"),
    ("UNAVAILABLE at a node that is no member, and for handles from before it left (not for B.01)", "B.02"),
    ("Several faults in one call are looked for in one order (of which the text says nothing)", "silent"),
    ("ACCESS depends on the open flags of the handle, not on who created the checkpoint", "3.5.1"),
    ("Calls come from any thread; callbacks only within Dispatch, in its thread", "Overview"),
    ("A process that ends, however it does, has closed and finalized everything", "3.1.1, 3.5.3"),
    # -- the library's life cycle
    (
        "Initialize with a supported version succeeds and returns the highest; the asked minor is ignored",
        "3.4.1",
    ),
    ("Any other version is VERSION, and the nearest supported one is returned", "3.4.1"),
    ("The rules of B.02 hold for those who ask for B.02, those of B.01 for those who ask for that", "B.02"),
    ("Callbacks may be left out; only the call that needs one is INIT", "3.4.1"),
    ("Several instances in one process have nothing in common", "Overview"),
    ("The selection object is readable while a callback is pending, and dies with Finalize", "3.4.2"),
    ("Dispatch ONE runs one callback at most and never waits", "Overview"),
    ("Dispatch ALL runs all that are pending and never waits", "Overview"),
    ("Dispatch BLOCKING runs callbacks until Finalize", "Overview"),
    ("Dispatch with other flags is INVALID_PARAM, on a dead handle BAD_HANDLE", "3.4.3"),
    ("Finalize closes what is open, cancels what is pending, and needs nothing closed before", "3.4.4"),
    ("A second Finalize is BAD_HANDLE", "3.4.4"),
    # -- opening
    ("CREATE and creation attributes come together or not at all", "3.5.1"),
    ("checkpointSize is at most maxSections times maxSectionSize", "3.5.1"),
    ("Creation flags: one update flag, perhaps with COLLOCATED, nothing else", "3.3.2.1"),
    ("COLLOCATED goes with each update flag", "3.3.2.1"),
    ("Open flags of 0 or with unknown bits are BAD_FLAGS, before all else", "3.5.1"),
    ("A handle opened with CREATE alone neither reads nor writes", "3.5.1"),
    ("An unknown name without CREATE is NOT_EXIST", "3.5.1"),
    ("A known name with CREATE and other attributes is EXIST, and nothing is opened", "3.5.1"),
    ("Another retention duration is no other attribute (at B.01 it is); the one in force stays", "B.02"),
    ("A known name with the same attributes is opened as it is", "3.5.1"),
    ("Names begin with safCkpt= (not for B.01); Unlink takes any name", "B.02"),
    ("A name above 2,048 bytes is TOO_BIG", "silent"),
    ("An open's time-out: negative INVALID_PARAM, over TIMEOUT, SA_TIME_MAX none", "3.5.1"),
    ("OpenAsync: faults of the arguments at once, the service's outcome by the callback alone", "3.5.1"),
    ("OpenAsync without an open callback is INIT", "3.5.1"),
    ("The invocation comes back as it was, whatever it was", "3.5.1"),
    ("With an error the callback's handle means nothing", "3.5.2"),
    ("One checkpoint is opened as often as anybody likes, each open a user of its own", "3.5.1"),
    ("An open that makes a replica ends when that replica is like the others", "3.5.1"),
    ("With maxSections 1, and only then, a default section is there from the beginning", "3.3.2.2"),
    ("Limits on checkpoints and replicas are NO_RESOURCES", "3.5.1"),
    # -- replicas, the active one, order
    ("At most one replica at a node, in memory only", "3.1.3, 3.1.8"),
    ("Collocated: replicas exactly at the nodes where a process has it open", "3.1.7.1"),
    ("Not collocated: the service places replicas, and more when a node is gone", "3.1.7.2"),
    ("Async: one active replica at most; collocated ones have none until it is set", "3.1.6, 3.1.7"),
    ("Without an active replica what needs one is NOT_EXIST, all else works", "3.5 to 3.7"),
    ("An async collocated checkpoint that lost its active replica has none until it is set", "3.1.7.1"),
    ("All others recover from the loss of a node on their own", "3.1.7.2"),
    ("With the last replica a checkpoint and its data are gone", "3.1.8"),
    ("Sync: an acknowledged update is at all replicas, and any of them may serve reads", "3.1.5"),
    ("Async: an acknowledged update is at the active replica, and every read goes there", "3.1.6"),
    ("Sync and async: an update is done as a whole or not at all, through any crash", "3.1.5, 3.1.6"),
    ("A Write that is refused has written nothing", "3.7.1"),
    ("Weak: sections that a fault caught half-updated are CORRUPTED", "3.1.6, 3.7.1"),
    ("A CORRUPTED section is neither read nor written; Overwrite and Delete mend it", "3.1.6, 3.3.3.4"),
    ("What Read and Write of a CORRUPTED section answer", "silent"),
    ("Updates of one writer keep their order everywhere, through all faults", "3.1.4"),
    ("Two writers at once: some order, perhaps the same at all replicas", "3.1.4"),
    ("The service offers no locks", "3.1.4"),
    # -- closing, unlinking, retention
    ("A closed handle, and what was made from it, is BAD_HANDLE", "3.5.3"),
    ("Close cancels the callbacks of its handle, and only those", "3.5.3"),
    ("The last close anywhere deletes what is unlinked, and starts the retention of the rest", "3.5.3"),
    ("Unlink frees the name at once, everywhere", "3.5.4"),
    ("Who has an unlinked checkpoint open keeps it whole until the last close", "3.5.4"),
    ("A freed name can be created again; old and new are strangers", "3.5.4"),
    ("Unlinked and open nowhere: deleted at once", "3.5.4"),
    ("Anybody may unlink, with no handle", "3.5.4"),
    ("Unlink of nothing is INVALID_PARAM, of what is not there NOT_EXIST", "3.5.4"),
    (
        "The retention runs from the last close, an open stops it, and it starts again in full",
        "3.3.2.2, 3.5.3",
    ),
    ("After its retention a checkpoint and its name are gone", "3.1.1"),
    ("A retention of 0 ends at once, one of SA_TIME_END never", "3.5.3"),
    ("RetentionDurationSet holds for all, and shows in the status; negative is INVALID_PARAM", "3.5.5"),
    ("RetentionDurationSet of an unlinked checkpoint is BAD_OPERATION", "3.5.5"),
    ("RetentionDurationSet needs WRITE (not at B.01)", "B.02"),
    ("The users that count for the retention are those of all nodes", "3.5.3"),
    # -- the active replica, the status
    ("ActiveReplicaSet is for async collocated checkpoints, else BAD_OPERATION", "3.5.6"),
    ("ActiveReplicaSet needs WRITE, and that is looked at first", "3.5.6"),
    ("ActiveReplicaSet ends when the local replica has all that the former had", "3.1.7.1"),
    ("It stays active until another is set, or it or the checkpoint goes", "3.5.6"),
    ("A replica that lags is brought up to date before it serves", "silent"),
    ("The status: attributes with the retention in force, number of sections, memory used", "3.3.5"),
    ("The default section counts; a new checkpoint with space for more has none", "3.3.5"),
    ("The memory used is the sum of the sections' sizes", "3.3.5"),
    ("Async: the status is the active replica's, NOT_EXIST without one", "3.5.7"),
    ("StatusGet needs READ (not at B.01)", "B.02"),
    # -- sections
    ("SectionCreate makes a section with its first content, which may be empty", "3.6.1"),
    ("SectionCreate needs WRITE", "3.6.1"),
    ("A first content above maxSectionSize is INVALID_PARAM", "3.6.1"),
    ("An id above maxSectionIdSize is INVALID_PARAM", "3.6.1"),
    ("Ids are limited by maxSectionIdSize, up to 65,535 bytes", "silent"),
    ("Ids are any bytes, and mean something in their checkpoint only", "3.1.2, 3.3.3.1"),
    ("An id that is there is EXIST; with maxSections 1 every id is", "3.6.1"),
    ("One section above maxSections is NO_SPACE", "3.6.1"),
    ("An id that is there, in a full checkpoint: EXIST", "silent"),
    ("Without an id the service generates a new one and returns it", "3.3.3"),
    ("SectionIdFree gives a made-up id's memory back", "B.02"),
    ("Running out of sections, and having some again, is notified", "B.02"),
    ("At its expiration, a time of day, a section goes everywhere; SA_TIME_END is never", "3.1.2, 3.3.3.2"),
    ("That it expired is one decision, which outlives every fail-over", "silent"),
    ("An expiration in the past is INVALID_PARAM", "silent"),
    (
        "SectionDelete: NOT_EXIST, INVALID_PARAM for the default section, ACCESS; its place is free at once",
        "3.6.2",
    ),
    (
        "ExpirationTimeSet: NOT_EXIST, INVALID_PARAM for the default section, ACCESS; the new time counts",
        "3.6.3",
    ),
    ("With maxSections above 1 the empty id names no section", "3.3.2.2"),
    ("lastUpdate is when the section last changed, its creation included", "3.3.3.4"),
    # -- iterating
    (
        "FOREVER, LEQ, GEQ, CORRUPTED and ANY choose what their names say; GEQ has those without end",
        "3.3.3.5",
    ),
    ("The default section takes part as one that never expires", "3.6.4"),
    ("An unknown choice or a negative time is INVALID_PARAM; no active replica NOT_EXIST", "3.6.4"),
    ("An iteration needs READ (not at B.01)", "B.02"),
    ("After the last section NO_SECTIONS, again and again; at once where none is chosen", "3.6.5"),
    ("What exists from begin to end is returned exactly once", "3.6.5"),
    ("A finalized iteration is BAD_HANDLE, and so is one whose handle or library is gone", "3.6.6"),
    ("Each section is returned with id, expiration, size, state and last update as of now", "3.6.5"),
    # -- writing
    ("Elements are applied in order: of two the later wins", "3.7.1"),
    ("Write never shortens, grows where it passes the end, and a gap reads as zeros", "3.7.1"),
    ("Data above maxSectionSize is INVALID_PARAM", "3.7.1"),
    ("Offset and size together above maxSectionSize are NO_RESOURCES", "silent"),
    ("Write: unknown section NOT_EXIST, no WRITE ACCESS, no active replica NOT_EXIST", "3.7.1"),
    ("No elements or a negative offset are INVALID_PARAM; an element of 0 bytes changes nothing", "silent"),
    ("A refusal names the lowest element at fault", "3.7.1"),
    ("checkpointSize is a plan: maxSections and maxSectionSize are what is enforced", "3.3.2.2"),
    ("A call that is too large as a whole is NO_RESOURCES", "silent"),
    ("Overwrite replaces content and size of any section", "3.7.2"),
    ("Overwrite: INVALID_PARAM above maxSectionSize or without data, NOT_EXIST, ACCESS", "3.7.2"),
    # -- reading
    ("Read gives what there is from the offset, at most the size asked for", "3.7.3"),
    ("Reading an empty section from 0 gives nothing, and is OK", "3.7.3"),
    ("Without a buffer all from the offset to the end is given", "3.7.3"),
    ("An offset at the end gives nothing, one beyond it is INVALID_PARAM", "silent"),
    ("A buffer, or offset and buffer together, above maxSectionSize are INVALID_PARAM", "3.7.3"),
    ("Read: no READ ACCESS, unknown section NOT_EXIST with its index, no active replica NOT_EXIST", "3.7.3"),
    ("IOVectorElementDataFree gives a read buffer's memory back", "B.02"),
    ("All elements of one Read are of one moment", "silent"),
    # -- synchronizing
    ("After Synchronize all replicas have what was acknowledged before it", "3.7.4"),
    ("Synchronize is for async checkpoints, else BAD_OPERATION", "3.7.4"),
    ("Synchronize needs WRITE, and that is looked at first", "3.7.4"),
    ("Without an active replica NOT_EXIST, from SynchronizeAsync itself too", "3.7.4"),
    ("SynchronizeAsync without a callback at the library handle is INIT", "3.7.4, 3.7.5"),
    ("Synchronize's time-out: negative INVALID_PARAM, over TIMEOUT", "3.7.4"),
    ("Synchronize works without sections and with one replica", "3.7.4"),
    ("The callback gets invocation and result, in the Dispatch of the opening instance", "3.7.5"),
    # -- tracking, which B.02.02 does not have
    ("Tracking is no part of B.02.02: OpenSAF adds it as B.02.03", "—"),
    ("Track without a callback is INIT, TrackStop without Track NOT_EXIST", "—"),
    ("One callback for each update of a tracked checkpoint, with what it touched and no data", "—"),
    # -- nodes that fail and come back
    ("The loss of a replica that is not active delays writes at most until it is detected", "3.1.5"),
    (
        "After a loss acknowledged sync updates are there; the last async ones may be missing, with no gap",
        "3.1",
    ),
    ("A process that dies counts as one that closed everything", "3.5.3"),
    ("The processes of a node that leaves the cluster count as ended", "Overview"),
    ("After a rejoin old handles are dead, and an outdated replica never wins", "Overview"),
    ("A minority acknowledges nothing that the majority will not keep", "silent"),
)
