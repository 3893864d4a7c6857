"""What `make bench-takeover` does, some times each, without a look at the figures."""

import pytest
from bench.takeover_rounds import Stage

from ckptd.testing import LocalCluster
from ckptd.testing_namespaces import NetnsCluster, why_unavailable

REASON = why_unavailable()
TTL_S = 3.0


def test_one_program_leads_at_a_time_when_programs_and_daemons_are_killed(cluster: LocalCluster) -> None:
    with Stage(cluster, TTL_S) as stage:
        for _ in range(2):
            stage.kill_program()
            stage.resign()
        stage.kill_daemon()
        assert stage.faults() == []
        assert stage.acknowledged


@pytest.mark.extended
def test_a_stopped_leader_learns_that_another_one_has_followed(cluster: LocalCluster) -> None:
    with Stage(cluster, TTL_S) as stage:
        for _ in range(2):
            stage.stop_program()
            stage.kill_daemon()
        assert stage.faults() == []


@pytest.mark.extended
@pytest.mark.skipif(bool(REASON), reason=REASON)
def test_a_program_on_another_host_follows_when_the_leaders_host_is_lost() -> None:
    with NetnsCluster(3) as cluster, Stage(cluster, TTL_S) as stage:
        for _ in range(2):
            stage.lose_host()
        assert stage.faults() == []
