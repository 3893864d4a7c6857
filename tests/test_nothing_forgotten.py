"""`make test` leaves out no fault, no rule and no lesson: each names here a test that it runs.

Requirements of the SA Forum cite their tests in tests/conformance (`test_coverage.py`).
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs"
LEFT_OUT = ("extended", "slow")
"""The marks of what `make test` does not run."""

FAULTS = {
    "the process of a node with the active replica dies": (
        "sim/test_failure_table.py::test_acknowledged_writes_survive_when_the_active_nodes_process_crashes",
        "e2e/test_failures.py::test_sigkill_of_the_active_node_loses_no_acknowledged_write",
        "e2e/test_failures.py::test_the_data_of_a_single_node_goes_with_it",
    ),
    "a host falls silent": (
        "sim/test_failure_table.py::"
        "test_standby_takes_over_within_two_seconds_when_the_active_machine_loses_power",
        "sim/test_failure_table.py::"
        "test_a_pair_blocks_until_the_coordinator_returns_when_its_machine_loses_power",
        "e2e/test_witness.py::test_the_other_continues_when_the_coordinator_is_paused",
    ),
    "a node with another replica dies or falls silent": (
        "sim/test_failure_table_more.py::test_writes_pause_for_less_than_50_ms_when_a_standbys_process_crashes",
        "sim/test_failure_table.py::"
        "test_writes_pause_for_no_more_than_the_replica_timeout_when_a_standby_falls_silent",
    ),
    "the network splits": (
        "sim/test_failure_table.py::test_the_coordinators_side_alone_continues_when_a_pair_is_partitioned",
        "sim/test_failure_table.py::test_the_majority_continues_when_five_nodes_are_split_two_to_three",
        "e2e/test_partitions.py::test_a_node_that_is_cut_off_serves_nothing_stale",
    ),
    "no side has a majority": (
        "core/test_views.py::test_no_node_serves_where_no_side_has_a_majority",
        "e2e/test_failures.py::test_without_a_majority_calls_try_again_and_status_says_what_is_awaited",
    ),
    "the network heals": (
        "sim/test_failure_table_more.py::"
        "test_what_the_losing_side_had_for_itself_goes_to_quarantine_when_a_partition_heals",
    ),
    "a split leaves all replicas of a checkpoint on the losing side": (
        "sim/test_failure_table.py::"
        "test_a_checkpoint_without_a_replica_in_the_majority_is_unavailable_and_adopted_at_heal",
        "core/test_collocated.py::test_the_retention_does_not_run_while_no_program_can_open_the_checkpoint",
    ),
    "one direction is lost": ("sim/test_failure_table.py::test_one_way_loss_counts_as_a_partition",),
    "a node is frozen shorter than the lease": (
        "sim/test_failure_table.py::test_a_pause_shorter_than_the_lease_changes_nothing_but_latency",
    ),
    "a node is frozen longer": (
        "sim/test_failure_table.py::"
        "test_a_paused_active_node_finds_its_lease_gone_before_it_touches_what_is_queued",
        "e2e/test_failures.py::test_a_node_that_was_paused_serves_nothing_stale_afterwards",
    ),
    "a slow replica": (
        "sim/test_failure_table.py::"
        "test_writes_continue_and_the_slow_replica_comes_back_when_it_lags_beyond_the_replica_timeout",
        "sim/test_failure_table_more.py::test_async_writers_never_wait_for_a_slow_replica",
    ),
    "a link that passes no data, or a round trip longer than the lease": (
        "core/test_lessons.py::test_writes_continue_while_a_link_is_stuck_and_heartbeats_pass",
        "sim/test_failure_table_more.py::test_writes_continue_while_a_replica_answers_later_than_a_lease",
    ),
    "packets are lost": (
        "sim/test_failure_table.py::test_no_view_changes_when_thirty_percent_of_all_datagrams_are_lost",
    ),
    "planned stop of one node": (
        "sim/test_failure_table.py::test_nothing_is_lost_and_no_call_fails_when_the_active_node_leaves",
        "e2e/test_failures.py::test_sigterm_hands_over_without_a_failed_call",
    ),
    "planned stops in quick succession": (
        "core/test_leaving.py::test_restarts_in_quick_succession_lose_nothing",
        "core/test_leaving.py::test_the_last_holder_reports_what_is_lost_with_it",
        "e2e/test_orderly_restarts.py::test_nodes_that_are_restarted_without_a_look_keep_everything",
    ),
    "ckptctl cluster stop": (
        "core/test_leaving.py::test_the_operator_stops_the_whole_cluster_and_no_node_waits",
        "e2e/test_orderly_restarts.py::test_the_operator_stops_the_whole_cluster",
    ),
    "all nodes die": (
        "sim/test_failure_table.py::test_what_both_nodes_of_a_pair_held_is_gone_when_both_crash",
    ),
    "the state directory is full, or read-only": (
        "core/test_disk.py::test_a_node_whose_disk_is_full_serves_on_and_says_so",
        "core/test_disk.py::test_a_node_whose_disk_is_full_gives_no_vote",
        "runtime/test_state_directory.py::test_a_full_disk_is_refused_at_the_start_and_survived_later",
        "runtime/test_state_directory.py::test_a_read_only_file_system_is_refused",
    ),
    "memory is full": (
        "core/test_memory.py::test_what_goes_beyond_the_limit_is_refused_and_changes_nothing",
        "core/test_memory.py::test_a_replica_elsewhere_that_is_full_refuses_for_all",
        "core/test_memory.py::test_a_replica_without_memory_is_deferred_until_there_is_some",
    ),
    "this process is paused": (
        "core/test_local_pause.py::test_a_node_that_was_paused_for_long_reads_what_waits_before_it_judges",
    ),
    "cold start": (
        "sim/test_failure_table.py::test_a_cold_start_waits_for_a_majority_of_the_voters",
        "sim/test_failure_table.py::test_a_restarted_majority_waits_for_the_last_member_or_proof_of_its_death",
        "sim/test_failure_table_more.py::test_a_cold_start_of_a_pair_waits_for_both",
    ),
    "the arbiter is away": (
        "sim/test_failure_table_more.py::"
        "test_service_continues_without_the_witness_and_a_crash_blocks_writes_until_it_is_back",
        "sim/test_failure_table_more.py::"
        "test_service_continues_without_the_register_and_a_crash_blocks_writes_until_it_is_back",
    ),
    "a state directory is lost": (
        "core/test_witness.py::"
        "test_a_data_node_that_lost_its_state_directory_does_not_vote_before_it_is_admitted",
        "core/test_pair_policy.py::"
        "test_a_coordinator_that_lost_its_state_directory_is_no_proof_after_a_silence",
    ),
    "a second daemon runs with a node's id": (
        "sim/test_impostors.py::test_a_cluster_at_rest_changes_no_view_because_of_impostors",
        "core/test_incarnations.py::test_forged_heartbeats_change_nothing",
        "e2e/test_node_identity.py::"
        "test_a_second_daemon_with_a_nodes_id_excludes_no_node_and_reports_what_is_wrong",
    ),
    "a node moves": ("runtime/test_peers.py::test_a_name_that_has_no_address_yet_is_looked_up_again",),
    "a clock was ahead, and then the state directory is lost": (
        "core/test_incarnations.py::test_a_start_below_one_that_is_known_begins_again_above_it",
    ),
    "a client dies": (
        "core/test_lifetimes.py::test_a_session_ends_at_once_when_its_process_is_known_to_be_dead",
        "core/test_lifetimes.py::test_a_session_ends_with_all_that_it_opened_when_its_grace_is_over",
        "e2e/test_failures.py::test_a_client_that_is_killed_counts_as_closed_at_once",
    ),
    "a client's node dies, freezes, is cut off (in either direction), is restarted, or answers garbage": (
        "client/test_leaving.py::test_a_client_continues_within_a_second_and_a_half",
    ),
    "a client is idle at that time": (
        "client/test_keeping.py::test_a_quiet_table_leaves_a_node_that_falls_silent",
        "client/test_leaving.py::test_a_client_continues_within_a_second_and_a_half",
    ),
    "a client reaches no node for longer than its grace": (
        "client/test_coming_back.py::test_a_table_comes_back_with_the_same_checkpoint",
        "client/test_coming_back.py::test_a_checkpoint_that_has_ended_is_reported_once_and_then_created_again",
        "client/test_leaving.py::test_handles_of_saf_that_ended_say_so_in_time",
    ),
    "a program tracks at that time": (
        "client/test_standby.py::test_a_session_that_ended_resumes_and_has_everything_looked_at",
        "client/test_standby.py::test_a_tracking_of_a_checkpoint_that_is_gone_says_that_it_ended",
    ),
    "a retention runs, and the coordinator is lost": (
        "sim/test_failure_table.py::"
        "test_retention_is_neither_shortened_nor_forgotten_when_the_coordinator_is_lost",
    ),
    "a table is resized, and a node is lost": (
        "core/test_resizing.py::test_a_resize_is_finished_after_the_active_replica_died",
        "core/test_resizing.py::test_a_resize_is_finished_after_the_coordinator_died",
        "core/test_resizing.py::test_a_resize_is_finished_though_its_client_died",
    ),
    "a table is resized, and all replicas that have it are lost": (
        "core/test_resizing_attacked.py::test_content_that_lost_a_resize_is_resized_to_the_larger_of_both",
    ),
    "a section's time comes, and the active replica is lost": (
        "core/test_fail_over.py::test_section_expiration_is_an_update_and_continues_after_a_fail_over",
    ),
    "a wall clock is set": (
        "runtime/test_clock.py::test_a_step_of_the_wall_clock_is_noticed_once_and_a_sleep_is_none",
    ),
}
"""The rows of both tables of docs/failures.md."""

RULES = {
    "5.1": ("core/test_sync_updates.py::test_a_node_without_a_replica_passes_reads_and_writes_on",),
    "5.2": (
        "core/test_sync_updates.py::test_a_refused_update_reaches_no_other_node_and_leaves_no_trace",
        "core/test_retries.py::test_a_refusal_of_an_earlier_time_as_active_replica_is_discarded",
    ),
    "5.3": (
        "core/test_sync_updates.py::test_a_write_is_not_answered_before_every_replica_holds_it",
        "core/test_sync_updates.py::test_a_read_at_a_replica_asks_the_active_one_where_an_update_is_pending",
    ),
    "5.4": (
        "core/test_fail_over.py::test_the_longest_staged_tail_is_kept_and_given_to_all",
        "core/test_fail_over.py::test_what_one_survivor_holds_is_served_only_when_the_other_one_has_it",
    ),
    "5.5": ("core/test_retries.py::test_a_joining_replica_learns_the_answers_that_were_given",),
    "5.6": ("core/test_fail_over.py::test_a_replica_that_does_not_acknowledge_is_evicted_from_the_view",),
    "5.7": (
        "core/test_joining.py::test_a_node_that_was_cut_off_gets_only_the_updates_that_it_missed",
        "core/test_joining.py::test_a_tail_without_which_the_cluster_continued_goes_to_quarantine",
    ),
    "5.8": ("core/test_retries.py::test_opens_and_unlinks_are_applied_once_when_the_coordinator_dies",),
    "5.9": (
        "core/test_containment.py::test_a_read_that_raises_is_answered_and_ends_its_connection_only",
        "core/test_stops.py::test_a_write_that_every_node_raises_at_stops_one_and_is_refused",
    ),
    "8.1": ("core/test_views.py::test_a_resumed_node_finds_its_lease_gone_before_it_touches_what_waits",),
    "8.2": (
        "core/test_joining.py::"
        "test_only_the_sections_that_differ_and_the_deletions_travel_when_the_updates_are_forgotten",
    ),
    "8.3": (
        "core/test_sync_updates.py::test_a_write_is_read_at_every_node_at_once",
        "core/test_sync_updates.py::test_a_reader_that_was_shown_an_update_shows_it_to_all_later_readers",
    ),
    "8.4": (
        "core/test_section.py::test_nothing_of_an_update_stays_when_its_last_operation_is_refused",
        "core/test_fail_over.py::"
        "test_an_asynchronous_fail_over_may_lose_a_tail_and_never_a_part_of_an_update",
    ),
    "8.5": ("core/test_retries.py::test_a_retry_after_a_fail_over_gets_the_first_answer",),
    "8.6": (
        "core/test_lifetimes.py::test_an_open_checkpoint_never_expires",
        "core/test_lifetimes.py::"
        "test_a_closed_checkpoint_goes_everywhere_when_its_retention_is_over_and_not_before",
    ),
    "8.7": ("core/test_section.py::test_create_is_refused_when_a_rule_is_broken",),
    "8.8": ("sim/test_seeds.py::test_every_rule_holds",),
    "8.9": (
        "core/test_arbiter.py::test_no_epoch_gets_two_views_whatever_the_network_does_and_whichever_node_dies",
    ),
    "8.10": (
        "core/test_leadership.py::test_while_a_program_leads_no_other_writes",
        "core/test_leadership.py::test_a_program_that_does_not_renew_is_followed_after_its_ttl",
        "sim/test_seeds.py::test_every_rule_holds",
    ),
    "8.11": (
        "core/test_leadership.py::test_a_refused_write_is_never_carried_out_later",
        "sim/test_seeds.py::test_every_rule_holds",
    ),
    "R1": (
        "core/test_pair.py::test_a_pairs_silence_or_an_old_refusal_promotes_no_node",
        "core/test_pair.py::test_a_restarted_coordinator_that_continued_alone_stops_the_other_from_promoting",
    ),
    "R2": (
        "core/test_old_replicas.py::"
        "test_an_old_replica_is_not_served_when_its_node_is_a_member_again_and_the_nodes_that_continued_die",
    ),
    "R3": (
        "core/test_arbiter.py::test_every_promise_and_acceptance_is_on_disk_before_it_is_sent",
        "core/test_disk.py::test_a_member_that_cannot_install_a_view_is_excluded_so_that_the_others_continue",
    ),
    "R4": (
        "core/test_views.py::test_a_restarted_node_has_no_data_and_does_not_become_active_by_it",
        "core/test_views.py::test_a_cold_start_waits_for_more_than_half_of_the_voters",
    ),
    "R5": (
        "core/test_collocated.py::test_an_update_whose_fate_died_with_the_active_replica_is_unknown",
        "core/test_register.py::test_a_swap_whose_answer_was_lost_is_found_in_the_register",
    ),
}
"""The rules of docs/rules.md that have a number."""

LESSONS = {
    "a replica's node dies, and a synchronous write blocks for 13 s": (
        "core/test_fail_over.py::test_writes_continue_when_a_backup_dies_and_it_is_rebuilt_when_it_returns",
    ),
    "the active replica's node dies, and a client waits its whole time-out": (
        "sim/test_failure_table.py::"
        "test_requests_in_flight_get_their_one_answer_when_the_active_node_crashes",
    ),
    "after half a synchronous write readers see old and new": (
        "core/test_fail_over.py::test_the_longest_staged_tail_is_kept_and_given_to_all",
    ),
    "a replica that refuses an update answers OK": (
        "core/test_lessons.py::test_a_replica_that_refuses_an_update_drops_its_content_reports_that_and_is_rebuilt",
    ),
    "an outdated replica is made active, and newer data is lost": (
        "core/test_collocated.py::test_an_activation_catches_up_with_the_most_advanced_replica_first",
    ),
    "each node has an active replica of its own": (
        "core/test_collocated.py::test_the_active_replica_is_handed_over_without_a_loss",
    ),
    "timers are lost with a fail-over": (
        "core/test_fail_over.py::test_section_expiration_is_an_update_and_continues_after_a_fail_over",
        "core/test_lifetimes.py::test_retention_continues_after_a_change_of_coordinator_and_is_never_shorter",
    ),
    "each node lets sections expire by its own clock": (
        "conformance/test_expiration.py::test_that_a_section_expired_is_the_active_replicas_decision_alone",
    ),
    "a retention ends while the checkpoint is opened": (
        "core/test_regressions.py::test_a_checkpoint_stays_when_it_is_opened_before_its_expiry_is_ordered",
    ),
    "a node's replica goes although others have the checkpoint open": (
        "core/test_lifetimes.py::test_an_open_checkpoint_never_expires",
    ),
    "a node is restarted before the others notice, and its empty state replaces theirs": (
        "core/test_views.py::test_a_restarted_node_has_no_data_and_does_not_become_active_by_it",
    ),
    "acknowledged writes of the majority revert at a heal": (
        "sim/test_failure_table_more.py::"
        "test_what_the_losing_side_had_for_itself_goes_to_quarantine_when_a_partition_heals",
    ),
    "deleted checkpoints reappear at a heal": (
        "core/test_lessons.py::"
        "test_a_checkpoint_that_was_unlinked_while_a_node_was_cut_off_does_not_come_back_with_it",
        "core/test_lessons.py::"
        "test_a_section_that_was_deleted_while_a_node_was_cut_off_does_not_come_back_with_it",
    ),
    "one name is created on both sides of a partition": (
        "core/test_lessons.py::test_one_name_is_not_created_on_both_sides_of_a_partition",
    ),
    "both sides of a partition are active": (
        "core/test_views.py::test_the_side_with_the_majority_continues_and_the_other_one_stops_first",
    ),
    "an offset of 2^32 kills every daemon": (
        "core/test_section.py::test_a_write_beyond_the_section_is_refused_before_anything_is_allocated",
        "core/test_memory_growth.py::test_a_hundred_writes_far_after_the_end_are_refused_before_anything_is_built",
    ),
    "sizes are not enforced, and the memory used is always 0": (
        "core/test_section.py::test_create_is_refused_when_a_rule_is_broken",
        "conformance/test_status.py::test_the_memory_used_is_the_sum_of_the_sections_sizes",
    ),
    "a section over 1 MB hangs the cluster at the next join": (
        "core/test_lessons.py::test_a_section_far_larger_than_a_chunk_is_joined",
    ),
    "a write of 600 kB is TRY_AGAIN for ever": (
        "e2e/test_three_nodes.py::test_large_updates_are_whole_on_every_node",
    ),
    "each change of the membership sends everything again": (
        "core/test_lessons.py::test_continuous_members_are_sent_no_section_again_when_the_membership_changes",
    ),
    "an update of many sections stays done in part": (
        "core/test_section.py::test_nothing_of_an_update_stays_when_its_last_operation_is_refused",
    ),
    "no section is ever CORRUPTED": (
        "core/test_fail_over.py::"
        "test_a_weak_section_whose_pieces_did_not_all_arrive_is_corrupted_until_overwritten",
    ),
    "what an operation costs grows with all that there is": (
        "core/test_memory_growth.py::test_generated_ids_are_found_without_looking_at_all_before_them",
        "core/test_turns.py::test_an_iteration_looks_at_a_bounded_number_of_sections_in_one_turn",
    ),
    "any user of the host can read all data": (
        "runtime/test_listening.py::test_the_unix_socket_has_its_mode_from_the_start",
        "e2e/test_three_nodes.py::test_a_cluster_key_keeps_out_clients_that_do_not_have_it",
    ),
    "errors turn into OK, or TRY_AGAIN never ends": (
        "core/test_withdrawals.py::"
        "test_what_waits_at_a_node_that_does_not_serve_is_given_back_with_the_reason",
    ),
    "ids over 30 bytes are damaged by a restart": (
        "core/test_lessons.py::test_section_ids_of_any_length_survive_a_rebuild",
    ),
    "an open with other attributes finds the checkpoint": (
        "core/test_validation.py::test_a_reopen_with_create_needs_the_same_attributes",
    ),
}
"""How OpenSAF, openais and ASP failed, and what shows that this service does not."""


@cache
def names_in(path: Path) -> dict[str, bool]:
    """The tests of a file, and whether `make test` runs them, or some of their cases."""
    body = ast.parse(path.read_text("utf-8")).body
    marks = [f"pytest.mark.{mark}" for mark in LEFT_OUT]
    of_all = [
        ast.unparse(node.value) for node in body if isinstance(node, ast.Assign) and is_pytestmark(node)
    ]
    left_out = any(mark in text for mark in marks for text in of_all)
    return {
        node.name: not left_out and not any(ast.unparse(each) in marks for each in node.decorator_list)
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def is_pytestmark(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)


@pytest.mark.parametrize("named", [FAULTS, RULES, LESSONS], ids=["faults", "rules", "lessons"])
def test_each_has_tests_that_make_test_runs(named: dict[str, tuple[str, ...]]) -> None:
    wrong = []
    for what, tests in named.items():
        for each in tests:
            path, _, name = each.partition("::")
            if not names_in(TESTS / path).get(name):
                wrong.append((what, each))
    assert wrong == []
    assert all(named.values())


def test_every_fault_of_the_failure_table_is_named() -> None:
    """A row begins with an asterisk where real processes show it, and with the fault in bold."""
    _, table, *_ = re.split(r"^## ", (DOCS / "failures.md").read_text("utf-8"), flags=re.MULTILINE)
    faults = [plain(cell) for cell in re.findall(r"^\| (?:\* )?(\*\*.+?) \|", table, re.MULTILINE)]
    assert len(faults) == len(FAULTS)
    assert [name for name, fault in zip(FAULTS, faults, strict=True) if not fault.startswith(name)] == []


def plain(cell: str) -> str:
    """A cell without its bold type, code and remarks in parentheses."""
    return re.sub(r"\s+\((SIGTERM|SIGSTOP, VM pause|power.*?)\)|[*`]", "", cell)


def test_every_rule_with_a_number_is_named() -> None:
    sections = re.split(r"^## ", (DOCS / "rules.md").read_text("utf-8"), flags=re.MULTILINE)
    numbered = [
        f"{section[0]}.{number}"
        for section in sections
        if section[:2] in ("5.", "8.")
        for number in re.findall(r"^(\d+)\. ", section[2:], re.MULTILINE)
    ]
    of_views = re.findall(r"^\*\*(R\d)\*\* ", "".join(sections), re.MULTILINE)
    assert sorted(numbered + of_views) == sorted(RULES)
