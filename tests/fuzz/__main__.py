"""`python -m tests.fuzz --minutes 10`: send spoiled frames for this time; exit with 1 if one broke a node."""

import argparse
import sys
import time
import tracemalloc

from tests.fuzz.corpus import record
from tests.fuzz.fuzzer import Fuzzer

FINDINGS_SHOWN_MAX = 20


def main() -> int:
    """Fuzz, and print a report."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seed", type=int, help="only this seed, and raise what it raises")
    parser.add_argument("--no-meter", action="store_true", help="do not measure memory: three times as fast")
    arguments = parser.parse_args()
    fuzzer = Fuzzer(record(), meter=not arguments.no_meter)
    if fuzzer.meter:
        tracemalloc.start()
    if arguments.seed is not None:
        fuzzer.run_seed(arguments.seed)
        seed, seconds = arguments.seed + 1, 0.0
    else:
        start, seed = time.monotonic(), arguments.first
        while time.monotonic() - start < arguments.minutes * 60:
            fuzzer.run_seed(seed)
            seed += 1
        seconds = time.monotonic() - start
    report = fuzzer.report
    pairs = {(place, sender, kind) for place, sender, kind in report.messages}
    print(
        f"seeds {arguments.first} to {seed - 1} in {seconds:.0f} s: {sum(report.messages.values())} messages,"
    )
    print(f"  {len(pairs)} combinations of state, sender and kind; {report.closed} ended their connection")
    print(f"  contained (a check is missing): {report.contained}")
    print(f"  most memory for one message: {report.peak_bytes[0]:,} bytes ({report.peak_bytes[1]})")
    print(f"  most counted work for one: {report.work[0]:,} units ({report.work[1]})")
    print(f"  most bytes sent because of one: {report.sent_bytes[0]:,} ({report.sent_bytes[1]})")
    print(f"  findings: {len(report.findings)}")
    for finding in report.findings[:FINDINGS_SHOWN_MAX]:
        print(f"  - {finding}")
    return 1 if report.findings else 0


sys.exit(main())
