"""What `bench.takeover` concludes from the programs' files."""

from bench.takeover_log import ProgramLog, Write, faults_of


def log(*lines: str) -> ProgramLog:
    found = ProgramLog()
    found.feed("".join(f"{line}\n" for line in lines))
    return found


FIRST = ("waits 1", "leads t1 0 2", "write t1 1 3 4", "write t1 2 5 6", "failed t1 3 7 8")
SECOND = ("waits 3", "leads t2 2 20", "write t2 3 21 22")


def test_a_takeover_without_a_fault() -> None:
    one = log(*FIRST, "lost t1 30", "refused t1 30", "waits 31")
    assert faults_of([log(*SECOND), one], 3) == []
    (leading,) = one.leadings
    assert leading.writes == [Write(1, 3, 4), Write(2, 5, 6)]
    assert (leading.unknown, leading.refused, one.waits_ns) == ([3], True, 31)
    assert leading.first_write_after(4) == Write(2, 5, 6)
    assert leading.first_write_after(5) is None


def test_a_write_of_unknown_outcome_may_have_been_done() -> None:
    assert faults_of([log(*FIRST), log("leads t2 3 20", "write t2 4 21 22")], 4) == []


def test_an_acknowledged_write_that_the_next_leader_has_not_read() -> None:
    assert faults_of([log(*FIRST), log("leads t2 1 20", "write t2 3 21 22")], 3) == [
        "t2 has read 1, but 2 was acknowledged before"
    ]


def test_a_write_that_began_when_another_one_led() -> None:
    late = log(*FIRST, "write t1 4 25 26")
    assert "t1 has written 4 when t2 led" in faults_of([late, log(*SECOND)], 4)


def test_a_late_write_that_the_service_accepts() -> None:
    late = log(*FIRST, "lost t1 30", "late t1 31")
    assert faults_of([late, log(*SECOND)], 3) == ["a late write of t1 was accepted"]


def test_two_leaders_with_one_token() -> None:
    assert "two leaders have the token t2" in faults_of([log(*SECOND), log("leads t2 3 40")], 3)


def test_a_table_that_has_lost_the_last_write() -> None:
    assert faults_of([log(*FIRST)], 1) == ["the table has 1, but 2 was acknowledged"]


def test_numbers_that_do_not_grow() -> None:
    assert faults_of([log("leads t1 5 2", "write t1 5 3 4")], 5) == ["t1: 5 was acknowledged after 5"]


def test_a_file_that_is_read_in_pieces() -> None:
    found = ProgramLog()
    for piece in ("waits 1\nleads t", "1 0 2\nresigned t1 3 ", "4\n"):
        found.feed(piece)
    assert found.leadings[0].resigned_ns == (3, 4)


def test_a_leadership_that_was_lost_before_anything_was_read() -> None:
    assert faults_of([log("waits 1", "lost t1 2", "waits 3"), log(*SECOND)], 3) == []
