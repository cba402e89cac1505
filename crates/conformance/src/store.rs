//! The suite of the ports of records: [`DatasetStore`](domain::DatasetStore), [`JobStore`](domain::JobStore),
//! [`PromptStore`](domain::PromptStore), [`BatchStore`](domain::BatchStore), [`RunStore`](domain::RunStore) and [`ModelStore`](domain::ModelStore).

pub mod batches;
pub mod budgets;
pub mod datasets;
pub mod forgetting;
pub mod further_runs;
pub mod jobs;
pub mod ledger;
pub mod lifecycle;
pub mod models;
pub mod prompts;
pub mod runs;
pub mod together;

/// One test for each case, on the store that `$open().await` opens: a [`StoreHarness`](crate::harness::StoreHarness).
#[macro_export]
macro_rules! store_suite {
    ($open:path) => {
        $crate::store_cases!([$crate::tests_of] [store $open]);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! store_cases {
    ([$($then:tt)+] [$($argument:tt)*]) => {
        $($then)+! { [$($argument)*]
            datasets {
                a_repeated_request_makes_one_dataset
                rows_come_back_as_they_were_appended
                a_repeated_chunk_does_nothing_twice
                a_gap_is_a_conflict_that_names_the_end
                repeated_keys_are_named_with_both_rows
                a_committed_dataset_is_immutable
                a_commit_is_repeated_only_with_the_same_fingerprint
                a_staged_dataset_is_invisible
                what_is_staged_for_long_is_removed
                the_newest_of_a_name_or_a_fingerprint_is_found
                rows_are_read_by_split_and_place
                rows_are_counted_by_split
                no_page_of_rows_is_longer_than_a_batch
                a_dataset_stays_while_an_unfinished_job_reads_it
                a_failed_job_does_not_resume_without_its_dataset
                a_deleted_dataset_is_gone
                unknown_datasets_are_not_found
                all_pages_together_are_everything_once
                a_page_goes_on_where_it_ended_whatever_was_added
                foreign_cursors_are_invalid
            }
            jobs {
                a_repeated_request_makes_one_job
                a_job_needs_a_committed_dataset
                planning_writes_prompts_with_their_outbox_and_moves_the_job
                planning_again_adds_only_what_is_new
                a_plan_that_fails_writes_nothing
                one_call_plans_so_many_prompts_and_no_more
                only_a_queued_or_harvesting_job_is_planned
                a_move_is_dated_and_tells_what_happened
                pausing_from_every_state
                resuming_from_every_state
                cancelling_from_every_state
                deleting_from_every_state
                a_paused_job_goes_back_to_where_it_stopped
                resuming_gives_parked_prompts_another_chance
                a_deleted_job_leaves_completions_and_models
                jobs_are_listed_by_state_and_name
                a_claimed_job_has_one_driver
                a_claim_takes_the_oldest_jobs_first
                a_claim_outlasts_the_planning_of_its_job
                a_job_that_loses_its_harvesters_pauses
                a_harvester_that_is_not_lost_counts_against_no_job
                a_job_that_comes_further_begins_its_count_anew
                suspects_are_driven_one_at_a_time
                the_teachers_result_is_written_with_its_event
                events_are_numbered_and_come_back_whole
                progress_counts_prompts_and_the_verdicts_of_train_rows
                an_obstacle_is_that_of_a_harvesting_job
                unknown_jobs_are_not_found
                a_cancelled_or_deleted_job_stops_its_trainer
            }
            lifecycle {
                every_path_appends_its_events
                a_budget_that_cannot_be_counted_is_refused
            }
            prompts {
                the_outbox_keeps_its_order_until_it_is_published
                the_trace_of_a_submit_goes_on_with_prompts_run_and_model
                unfinished_prompts_have_no_live_lease
                a_lease_hands_out_the_prompt_and_its_row
                a_leased_prompt_is_busy_until_its_lease_runs_out
                what_needs_nothing_more_is_settled
                an_answered_question_is_never_asked_again
                one_key_is_asked_once_at_a_time
                a_heartbeat_prolongs_and_names_what_was_lost
                an_answer_under_a_lost_lease_is_kept_and_changes_nothing
                answers_that_are_paid_for_twice_are_counted
                a_late_answer_that_spares_a_call_is_not_paid_twice
                a_repeated_record_counts_nothing_twice
                a_hit_of_the_cache_is_counted_where_it_is_written
                a_record_that_fails_writes_nothing
                answers_of_paused_and_deleted_jobs_are_kept
                completions_keep_every_word_and_the_first_one_stays
                an_answer_that_no_prompt_asked_for_is_kept
                a_delayed_prompt_is_free_again_and_nothing_is_counted
                failures_of_the_teacher_park_a_prompt_and_no_other
                a_failure_under_a_lost_lease_does_nothing
                prompts_are_paged_by_whole_rows
                unknown_jobs_have_no_prompts
                a_lease_can_be_long
                two_hundred_answers_are_written_at_once
            }
            budgets {
                what_is_used_up_skips_the_rest
                no_more_is_leased_at_once_than_may_be_called
                more_leases_than_budget_make_no_more_calls
                each_end_of_a_call_has_its_price
                a_call_of_a_lost_lease_is_in_doubt_until_its_answer_turns_up
                a_job_that_does_not_harvest_makes_no_call
                a_prompt_may_take_several_calls
                an_answer_settles_its_reservation
                a_stale_answer_is_spent_from_the_budget
                an_answer_from_the_store_is_free
                each_job_has_its_own_budget
                random_histories_stay_within_the_budget
            }
            batches {
                a_line_is_a_call_that_lives_as_long_as_its_batch
                what_is_asked_in_batches_is_no_workers
                an_answered_question_is_no_line
                one_question_is_one_line_of_all_jobs
                a_batch_is_filled_up_to_its_lines
                a_batch_is_filled_within_the_budget
                a_batch_has_one_worker
                many_workers_share_no_batch
                a_batch_is_submitted_once
                lines_are_found_and_paged
                a_line_without_an_answer_gives_its_prompt_back
                a_batch_that_is_too_long_is_split
                lines_that_are_open_at_the_end_are_in_doubt
                a_job_that_stops_keeps_its_batches_until_it_is_deleted
            }
            ledger {
                an_entry_holds_what_was_asked_said_and_read
                the_ledger_is_paged_by_whole_rows
                final_verdicts_replace_the_provisional_ones
                imported_answers_are_entries_that_cost_nothing
                an_import_that_fails_writes_nothing
                nothing_is_imported_into_a_job_that_does_not_harvest
                what_is_not_answered_is_not_in_the_ledger
            }
            forgetting {
                the_ledger_and_forgetting_take_the_same_entries
                what_is_forgotten_is_asked_again_and_kept
                addresses_follow_what_was_forgotten
                a_job_that_does_not_harvest_keeps_its_entries
                a_job_that_is_paused_in_its_harvest_asks_again_when_it_resumes
                a_repeated_request_forgets_nothing_more
                jobs_that_share_an_answer_forget_it_once
                an_answer_that_was_forgotten_does_not_come_back
                training_waits_for_what_is_asked_again
                nothing_is_forgotten_that_nobody_can_be_asked_for
                parked_prompts_are_retried_by_their_failure
                a_whole_ledger_is_forgotten_at_once
            }
            runs {
                training_starts_once
                only_a_harvesting_job_starts_to_train
                a_leased_run_brings_what_a_trainer_needs
                the_oldest_run_is_leased_first
                a_report_prolongs_the_lease_and_writes_numbers
                a_lost_lease_changes_nothing
                a_cancelled_run_publishes_nothing
                a_paused_jobs_run_waits
                the_newest_resume_point_orphans_the_one_before
                evaluation_starts_once
                a_publication_ends_run_and_job_and_can_be_repeated
                a_student_without_accuracies_is_published
                versions_count_up_by_name
                a_failed_run_can_be_resumed
                a_released_run_is_free_at_once
                a_run_that_loses_its_trainers_fails
                metrics_are_in_order_of_step_and_filtered_by_name
                a_whole_learning_curve_is_read_at_once
                numbers_that_are_not_finite_do_no_damage
                unknown_runs_are_not_found
            }
            further_runs {
                a_ledger_takes_many_runs
                a_repeated_request_makes_one_run
                a_further_run_is_leased_with_its_own_settings
                a_further_run_ends_without_its_job
                a_further_run_that_fails_leaves_its_job
                a_lost_lease_of_a_further_run_changes_nothing
                further_runs_go_on_while_their_job_is_paused
                a_cancelled_job_ends_its_further_runs
                a_ledger_that_still_grows_takes_no_run
                a_harvest_is_probed_over_a_share_of_its_rows
                a_dataset_stays_while_a_further_run_waits
                a_deleted_job_names_the_runs_that_no_model_came_from
                runs_are_listed_newest_first
            }
            models {
                a_model_is_found_by_name_and_version
                models_are_listed_newest_first
                a_deleted_model_is_returned_and_gone
                a_base_model_is_registered_once
            }
            together {
                workers_never_share_a_prompt
                one_question_of_many_jobs_is_asked_once
                a_budget_holds_against_many_workers
                answers_at_the_same_time_are_all_written
                progress_is_of_one_moment
                failures_and_answers_race_without_loss
                events_have_no_holes_under_many_writers
                a_transition_is_made_by_one_caller
                drivers_never_share_a_job
                trainers_never_share_a_run
                a_repeated_request_is_one_thing_for_many_callers
                a_chunk_sent_by_many_is_appended_once
                training_is_started_once_by_many
                publications_of_one_name_count_up
                prompts_planned_by_many_are_planned_once
            }
        }
    };
}

/// Every case of the suite, as an adapter's report lists it.
pub const CASES: &[&str] = store_cases!([crate::names_of] []);
