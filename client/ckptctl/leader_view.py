"""Who leads a checkpoint, for people and for `--json`."""

from rich.console import Console
from rich.markup import escape
from rich.table import Column
from rich.table import Table as Grid

from ckpt_client.leadership.leaders import Leader, LeadershipHistory, PastLeader, WaitingProgram
from ckptctl.text_format import show_duration, show_moment, show_text

MILLISECOND_NS = 1_000_000


def show_program(program: Leader | WaitingProgram | PastLeader) -> str:
    """Return a program as it describes itself, on one line."""
    return f"{show_text(program.name)} (process {program.pid} on {show_text(program.host)})"


def print_history(console: Console, name: str, history: LeadershipHistory) -> None:
    """Print who leads, who waits, and who led."""
    _print_leader(console, name, history.leader)
    if history.waiting:
        grid = Grid("place", "waiting", "node", box=None, pad_edge=False)
        for place, program in enumerate(history.waiting, 1):
            grid.add_row(str(place), escape(show_program(program)), escape(program.node or "none now"))
        console.print(grid)
    else:
        console.print("no program waits", style="dim")
    if history.ended:
        whole = (Column(head, no_wrap=True) for head in ("for", "until", "ended"))
        grid = Grid("led before", *whole, box=None, pad_edge=False)
        for past in reversed(history.ended):
            led_ns = max(past.ended - past.since, 0) // MILLISECOND_NS * MILLISECOND_NS
            grid.add_row(
                escape(show_program(past)), show_duration(led_ns), show_moment(past.ended), past.reason
            )
        console.print(grid)


def _print_leader(console: Console, name: str, leader: Leader | None) -> None:
    if leader is None:
        console.print(f"{escape(name)}: no program leads")
        return
    console.print(f"{escape(name)}: {escape(show_text(leader.name))} leads", style="bold")
    facts = Grid(box=None, show_header=False, pad_edge=False)
    facts.add_row("process", f"{leader.pid} on {escape(show_text(leader.host))}")
    facts.add_row("node", escape(leader.node) or "none now")
    facts.add_row("since", show_moment(leader.since))
    facts.add_row("token", leader.token)
    writes = "no other may write" if leader.exclusive else "others may write, too"
    facts.add_row("exclusive", f"{'yes' if leader.exclusive else 'no'}: {writes}")
    facts.add_row("ttl", f"{leader.ttl:g} s")
    facts.add_row(
        "its death",
        "is seen at once: then the next one leads"
        if leader.death_seen
        else "is not seen: the next one leads after the ttl",
    )
    console.print(facts)


def history_json(name: str, history: LeadershipHistory) -> dict[str, object]:
    """Return the same for JSON; the last one that led stands last."""
    leader = history.leader
    return {
        "name": name,
        "leader": None if leader is None else leader._asdict(),
        "waiting": [program._asdict() for program in history.waiting],
        "ended": [past._asdict() for past in history.ended],
    }
