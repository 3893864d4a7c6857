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
        "A program whose node leaves the cluster continues at another node, with every handle that it "
        "has. Only when it has reached no node for `session_grace` (10 s) are its handles UNAVAILABLE.",
        "So a lost daemon costs an application no more than a short wait. By the text it would have to "
        "open and read everything again.",
    ),
    "R10": Deviation(
        "Over a unix socket (Linux) as asked: the node sees at once that the process has ended. If a "
        "process ends without closing what it has open, this is closed 10 s later over TCP "
        "(`session_grace`), and 70 s later over UDP: 60 s without a datagram, then the grace.",
        "A lost connection does not prove that the process at its other end is dead, and UDP has no "
        "connection. A program that lives comes back within the grace, and still has everything open. A "
        "program that finalizes before it ends has closed everything at once, over every transport.",
    ),
    "R33": Deviation(
        "A name is UTF-8 and holds no NUL byte: any other is INVALID_PARAM, in an open and in an unlink.",
        "Names appear in logs, in file names and on the command line.",
    ),
    "R45": Deviation(
        "A program that continues at another node after its own was lost (R6) gets a replica there of "
        "every collocated checkpoint that it has open, as if it had opened them there.",
        "The node of a program has a replica of each collocated checkpoint that the program has open: "
        "that is the purpose of such a checkpoint.",
    ),
    "R48": Deviation(
        "Without an active replica SectionIterationFinalize is OK, not NOT_EXIST.",
        "The service keeps nothing for an iteration, and ending one should never fail.",
    ),
    "R59": Deviation(
        "If the active replica of an asynchronous checkpoint that is not collocated is lost with the last "
        "updates, the writer gets no error, and what it writes next is done. A reader then sees the later "
        "update, but not the lost ones before it. The service logs the loss.",
        "No call of the interface could report it to the writer. A program that needs more uses a "
        "synchronous checkpoint, or synchronizes at the points that matter.",
    ),
    "R99": Deviation(
        "There are no notifications. A program that runs out of sections gets NO_SPACE from its call. A "
        "program that tracks the checkpoint gets each section that is created, deleted or expired.",
        "Notifications belong to the SA Forum's Notification Service, which is not part of this.",
    ),
    "R144": Deviation(
        "In a weak checkpoint a batch of updates (5 ms) is one callback, with the final outcome for each "
        "section; a handle may get its own writes if they are in a batch with others. A program that lags "
        "behind by more than 128 changes gets only the final outcome for each section. A program that "
        "lags behind by more than the service keeps, or tracks an asynchronous checkpoint that lost its "
        "active replica, gets every section, including those that it wrote itself.",
        "A weak checkpoint sends which sections changed, not how; and a slow program is better served "
        "with less.",
    ),
    "R147": Deviation(
        "Over a unix socket (Linux) as asked. A dead process counts as one that closed everything after "
        "10 s over TCP (`session_grace`), and after 70 s over UDP: the retention begins then.",
        "As R10.",
    ),
    "R148": Deviation(
        "The programs of a node that leaves continue at another node, with what they have open. If a "
        "program comes to no node within `session_grace` (10 s), what it had open is closed, and the "
        "retention begins.",
        "As R6: the loss of a daemon is not the loss of its clients. If a whole machine is lost with its "
        "programs, this shows when they do not come back.",
    ),
    "R149": Deviation(
        "Handles survive the loss of their node, and its return: they are dead only when their session is "
        "over. The replicas of a node that returns are made again from the others, as asked.",
        "As R6.",
    ),
}

NOT_APPLICABLE: Final[dict[str, str]] = {}
