//! The model is honest: each story is told once and played twice, with the modelled etcd and with a real one behind the
//! product's own adapter, and what both said must be the same.
//!
//! The real one is the etcd at hand, and a current one too where `BELLWETHER_ETCD_CURRENT` names it.
#![expect(clippy::unchecked_time_subtraction, reason = "a test that subtracts too much should panic")]

mod model;
mod party;
mod real;
mod stories;
mod tale;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use model::{Lie, Model};
use party::{Party as _, Shape};
use real::{Real, binaries};
use tale::Tale;

/// The model must say the same whatever its chances: so many of its clusters tell each story.
const SEEDS: u64 = 20;

/// Plays a story with both; fails with both tales when they differ.
macro_rules! compare {
    ($story:path, $shape:expr, $lie:expr) => {
        async {
            let against = async |binary: PathBuf| {
                let mut real = Real::start($shape, binary.clone()).await?;
                let mut truth = Tale::default();
                $story(&mut real, &mut truth).await?;
                ensure!(!truth.lines.is_empty(), "a story without a word");
                for seed in 0..SEEDS {
                    let mut model = Model::new($shape, real.behaviour(), seed, $lie);
                    let mut tale = Tale::default();
                    $story(&mut model, &mut tale).await?;
                    tale.agrees(&truth, &format!("{}", binary.display()), seed)?;
                }
                anyhow::Ok(())
            };
            let (default, current) = binaries()?;
            let beside = async {
                match current {
                    Some(current) => against(current).await,
                    None => Ok(()),
                }
            };
            // Stories are made of waiting.
            tokio::try_join!(against(default), beside)?;
            anyhow::Ok(())
        }
    };
}

macro_rules! stories {
    ($($shape:expr => $($module:ident::$story:ident),+;)+) => {$($(
        #[tokio::test]
        async fn $story() -> Result<()> {
            compare!(stories::$module::$story, $shape, None).await
        }
    )+)+};
}

stories! {
    Shape::ALONE =>
        keys::a_claim_is_won_once_and_shows_its_lease_to_who_repeats_it,
        keys::a_lost_lease_claims_and_registers_nothing,
        keys::registrations_are_kept_guarded_and_counted,
        keys::guarded_deletes_spare_another_revision,
        keys::a_key_put_again_without_the_lease_outlives_it,
        resumes::a_resume_under_lock_and_lease_is_won_and_every_confirm_shows_it,
        resumes::a_resume_of_another_term_or_lease_changes_nothing,
        resumes::a_resume_without_the_candidate_key_changes_nothing,
        resumes::a_resume_with_a_lease_that_is_gone_changes_nothing,
        resumes::a_lock_that_was_put_again_with_its_lease_is_resumed_and_without_it_is_not,
        leases::a_grant_repeated_tells_the_first_lifetime,
        leases::a_keep_alive_of_a_missing_lease_answers_zero,
        leases::a_lease_lasts_its_lifetime_and_half_a_second_at_most,
        leases::a_keep_alive_after_the_lifetime_finds_nothing,
        leases::a_revoke_takes_all_keys_in_one_revision,
        watches::a_watch_from_the_past_tells_everything_in_order,
        watches::a_watch_from_before_a_compaction_is_told_so,
        watches::a_watch_from_a_compacted_deletion_depends_on_the_server_s_age,
        outages::a_claim_whose_member_was_killed_is_settled_by_repeating_it,
        outages::a_claim_whose_member_was_stopped_is_settled_by_repeating_it,
        outages::a_wiped_store_begins_anew_under_the_same_ids;
    Shape::SMALL =>
        leases::a_full_store_refuses_puts_and_grants_and_does_the_rest;
    Shape::THREE =>
        cluster::a_follower_passes_keep_alives_on,
        cluster::a_new_etcd_leader_extends_every_lease,
        cluster::a_member_without_a_majority_answers_nothing,
        cluster::a_stopped_leader_is_replaced_and_learns_of_it,
        cluster::a_claim_through_a_follower_survives_the_kill_of_the_leader,
        stalls::a_stalled_leader_answers_keep_alives_by_its_age,
        stalls::a_thawed_leader_revokes_a_renewed_lease_by_its_age;
}

/// A story that a wrong model tells must not pass.
macro_rules! lies {
    ($($name:ident: $lie:expr, $module:ident::$story:ident;)+) => {$(
        #[tokio::test]
        async fn $name() -> Result<()> {
            let shape = Shape::ALONE;
            let caught = compare!(stories::$module::$story, shape, Some($lie)).await;
            ensure!(caught.is_err(), "the lie went unnoticed");
            Ok(())
        }
    )+};
}

lies! {
    a_model_that_renews_missing_leases_is_caught:
        Lie::MissingLeaseLives, leases::a_keep_alive_of_a_missing_lease_answers_zero;
    a_model_whose_leases_do_not_expire_is_caught:
        Lie::NothingExpires, leases::a_lease_lasts_its_lifetime_and_half_a_second_at_most;
    a_model_that_lets_lost_leases_claim_is_caught:
        Lie::LostLeaseClaims, keys::a_lost_lease_claims_and_registers_nothing;
    a_model_that_resumes_whatever_is_there_is_caught:
        Lie::EveryResumeIsWon, resumes::a_resume_without_the_candidate_key_changes_nothing;
    a_model_that_hides_compactions_is_caught:
        Lie::CompactionGoesUnsaid, watches::a_watch_from_before_a_compaction_is_told_so;
}
