"""The table of requirements, made from a run of the scenarios: always the same for the same outcomes."""

from tests.conformance.deviations import DEVIATIONS, NOT_APPLICABLE
from tests.conformance.marks import EACH_TRANSPORT
from tests.conformance.requirements import REQUIREMENTS

AS_ASKED = "as asked"
DEVIATES = "deviates"
NOT_APPLYING = "does not apply"
FAILS = "**fails**"
NOT_SHOWN = "**not shown**"
_COUNTED = {
    AS_ASKED: "met as asked",
    DEVIATES: "deviated from on purpose",
    NOT_APPLYING: "without meaning here",
    FAILS: "not met",
    NOT_SHOWN: "not shown",
}

_HEAD = """# Conformance

What the SA Forum asks of a Checkpoint Service (SAI-AIS-CKPT-B.02.02), requirement by requirement, and what
this one does. `make conformance` runs the scenarios of `tests/conformance/` and writes this page from what
they showed.

A scenario runs with the real cores and the real client library in virtual time, and with three real daemons,
whose clients come by unix socket; what concerns the client alone also by TCP and by UDP. Names are without
their prefix (`SA_CKPT_`, `SA_AIS_ERR_`); sections are those of SAI-AIS-CKPT-B.01.01.
"""


def _number(requirement: str) -> int:
    return int(requirement[1:])


class Outcomes:
    """The results of scenarios, by requirement and world."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, bool]] = {}
        self._reasons: dict[str, set[str]] = {}

    def add(self, numbers: tuple[str, ...], kind: str, outcome: str, why: str) -> None:
        """Add the result of a scenario. `why`: why it runs only in some worlds."""
        if outcome == "skipped":
            return
        for number in numbers:
            worlds = self._seen.setdefault(number, {})
            worlds[kind] = worlds.get(kind, True) and outcome == "passed"
            self._reasons.setdefault(number, set()).add(why)

    def result(self, requirement: str) -> str:
        """Return the result for a requirement as a whole."""
        worlds = self._seen.get(requirement, {})
        if not all(worlds.values()):
            return FAILS
        if requirement in NOT_APPLICABLE:
            return NOT_APPLYING
        if not worlds:
            return NOT_SHOWN
        return DEVIATES if requirement in DEVIATIONS else AS_ASKED

    def _row(self, requirement: str) -> str:
        text, section = REQUIREMENTS[requirement]
        worlds = self._seen.get(requirement, {})
        marks = ["" if kind not in worlds else "✓" if worlds[kind] else "✗" for kind in EACH_TRANSPORT]
        return f"| {requirement} | {text} | {section} | {self.result(requirement)} | {' | '.join(marks)} |"

    def _totals(self) -> str:
        results = [self.result(requirement) for requirement in REQUIREMENTS]
        counted = [(results.count(result), words) for result, words in _COUNTED.items()]
        return (
            f"{len(REQUIREMENTS)} requirements: **{', '.join(f'{n} {words}' for n, words in counted if n)}**."
        )

    def _only(self) -> list[str]:
        """Return the requirements that are shown in one world only, and why."""
        lines = []
        for requirement in REQUIREMENTS:
            reasons = sorted(self._reasons.get(requirement, set()))
            if reasons and all(reasons):
                kinds = " and ".join(kind for kind in EACH_TRANSPORT if kind in self._seen[requirement])
                lines.append(f"* **{requirement}**, {kinds}: {'; '.join(reasons)}.")
        return lines

    def table(self) -> str:
        """Return the page."""
        lines = [_HEAD, self._totals(), ""]
        lines.append("| | asks | SAF | result | virtual | unix | tcp | udp |")
        lines.append("| --- | --- | --- | --- | --- | --- | --- | --- |")
        lines += [self._row(requirement) for requirement in REQUIREMENTS]
        if DEVIATIONS:
            lines += ["", "## Deviations", ""]
            for requirement in sorted(DEVIATIONS, key=_number):
                what, why = DEVIATIONS[requirement]
                lines.append(f"* **{requirement}.** {what} *{why}*")
        if NOT_APPLICABLE:
            lines += ["", "## What does not apply", ""]
        for requirement in sorted(NOT_APPLICABLE, key=_number):
            lines.append(f"* **{requirement}.** {NOT_APPLICABLE[requirement]}")
        only = self._only()
        if only:
            lines += ["", "## Shown in some worlds only", "", *only]
        return "\n".join(lines) + "\n"
