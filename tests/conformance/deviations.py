"""The intended deviations from requirements, and the requirements that do not apply to a Python library.

A deviation has scenarios, too: they show what the service does instead. A requirement that does not apply has
a reason and no scenario.
"""

from typing import Final, NamedTuple


class Deviation(NamedTuple):
    """What we do instead of what the requirement asks, and why."""

    what: str
    why: str


DEVIATIONS: Final[dict[str, Deviation]] = {
    "R6": Deviation(
        "A program whose node leaves the cluster goes on at another node, with every handle it has. Only "
        "once it has reached no node for `session_grace` (10 s) are its handles UNAVAILABLE.",
        "A lost daemon then costs an application no more than a short wait; with the text it would have to "
        "open and read everything anew.",
    ),
    "R10": Deviation(
        "As asked by a unix socket (Linux): the node sees at once that the process has ended. By TCP all "
        "that a process had open that ended without closing it is closed 10 s later (`session_grace`), by "
        "UDP 70 s later: 60 s without a datagram, then the grace.",
        "A lost connection is no proof that the process at its other end is dead, and UDP has none to lose. "
        "A program that is alive comes back within the grace, and has all that it had open. Who ends in good "
        "order and finalizes has closed everything at once by every transport.",
    ),
    "R33": Deviation(
        "A name is UTF-8 and holds no NUL byte: any other is INVALID_PARAM, in an open and in an unlink.",
        "Names appear in logs, in file names and on the command line.",
    ),
    "R45": Deviation(
        "A program that goes on at another node, since its own was lost (R6), has a replica made there of "
        "every collocated checkpoint that it has open, as if it had opened them there.",
        "Where a program is, its collocated checkpoints have a replica: that is what it opened them for.",
    ),
    "R48": Deviation(
        "Without an active replica SectionIterationFinalize is OK, not NOT_EXIST.",
        "Nothing is kept at the service for an iteration; to end one should never fail.",
    ),
    "R59": Deviation(
        "When the active replica of an asynchronous checkpoint that is not collocated is lost with the last "
        "updates, a writer is not told, and what it writes next is done: then a reader sees that, and not "
        "what was lost before it. The service logs the loss.",
        "No call of the interface could tell the writer. Who needs more uses a synchronous checkpoint, or "
        "synchronizes at the points that count.",
    ),
    "R99": Deviation(
        "Nothing is notified. Who runs out of sections is told so by the call, NO_SPACE; who tracks the "
        "checkpoint is told of each section that is created, is deleted or has expired.",
        "Notifications are the business of the SA Forum's Notification Service, which is not part of this.",
    ),
    "R144": Deviation(
        "Of a weak checkpoint a batch of updates (5 ms) is one callback, with what became of each section; a "
        "handle may hear of what it wrote itself in one batch with others. Who is behind by more than 128 "
        "changes is told only what became of each section; who is behind by more than the service keeps, or "
        "tracks an asynchronous checkpoint that lost its active replica, is told of every section, also of "
        "those that it wrote itself.",
        "A weak checkpoint sends what changed, not how; and who is slow is better served with less.",
    ),
    "R147": Deviation(
        "As asked by a unix socket (Linux). By TCP a dead process counts as one that closed everything after "
        "10 s (`session_grace`), by UDP after 70 s: the retention begins then.",
        "As R10.",
    ),
    "R148": Deviation(
        "The programs of a node that leaves go on at another node, with what they have open. What those had "
        "open that come to no node within `session_grace` (10 s) is closed then, and the retention begins.",
        "As R6: a lost daemon is not the loss of its clients. That a whole machine is lost, with all that "
        "ran there, shows when they do not come back.",
    ),
    "R149": Deviation(
        "Handles outlive the loss of their node, and its return: they are dead only when their session is "
        "over. The replicas of a node that returns are made anew from the others, as is asked.",
        "As R6.",
    ),
}

NOT_APPLICABLE: Final[dict[str, str]] = {}
