//! From any survey, planning and carrying out comes to an end, breaks nothing on the way, and
//! leaves the cluster as it should be. What "should be" means is written here once more, from the
//! promises and not from the rules.

mod expect;
mod generate;

use flotilla_placement::rehearse::Rehearsal;
use flotilla_placement::{Plan, Step, Survey, check, plan};

use generate::Chance;

/// Rounds within which every cluster must be done.
const ROUNDS_MAX: usize = 3_000;
/// Clusters tried, unless `SEEDS` says how many.
const SEEDS_COUNT: u64 = 30;
/// Clusters in which steps are tried by chance, and how many in each.
const STEPS_SEEDS_COUNT: u64 = 100;
const STEPS_COUNT: usize = 60;
/// Times that a cluster is disturbed after it has come to rest.
const DISTURBANCES_COUNT: usize = 2;

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok());
    0..count.unwrap_or(SEEDS_COUNT)
}

#[test]
fn every_cluster_comes_to_rest_as_it_should_be() {
    for seed in seeds() {
        let mut chance = Chance::new(seed);
        let mut rehearsal = generate::rehearsal(&mut chance);
        settle(seed, &mut rehearsal);
        for _ in 0..DISTURBANCES_COUNT {
            generate::disturb(&mut chance, &mut rehearsal.survey);
            settle(seed, &mut rehearsal);
        }
    }
}

/// Runs to the end and looks at every step on the way.
fn settle(seed: u64, rehearsal: &mut Rehearsal) {
    let twice = [(); 2].map(|()| plan(&rehearsal.survey.clone(), &rehearsal.policy));
    assert_eq!(twice[0], twice[1], "seed {seed}: two plans for one survey");
    for _ in 0..ROUNDS_MAX {
        let plan = plan(&rehearsal.survey, &rehearsal.policy);
        check_plan(seed, rehearsal, &plan);
        for decision in &plan.decisions {
            let before = rehearsal.survey.clone();
            let step = &decision.step;
            let answer = check(&before, &rehearsal.policy, step);
            assert_eq!(answer, Ok(()), "seed {seed}: {decision}");
            rehearsal.carry_out(step).expect("it was checked");
            expect::nothing_broken(seed, &before, &rehearsal.survey, &rehearsal.policy, step);
        }
        if !rehearsal.settle() && plan.decisions.is_empty() {
            return expect::as_it_should_be(seed, &rehearsal.survey, &rehearsal.policy);
        }
        rehearsal.pass(rehearsal.round_ms);
    }
    let last = plan(&rehearsal.survey, &rehearsal.policy);
    panic!("seed {seed} does not come to rest, last plan: {:#?}", last.decisions);
}

fn check_plan(seed: u64, rehearsal: &Rehearsal, made: &Plan) {
    let Rehearsal { survey, policy, .. } = rehearsal;
    let mut ranges: Vec<u64> =
        made.decisions.iter().flat_map(|decision| decision.step.ranges()).collect();
    let count = ranges.len();
    ranges.sort_unstable();
    ranges.dedup();
    assert_eq!(ranges.len(), count, "seed {seed}: a range is in two steps");
    assert!(made.decisions.len() <= policy.steps_max, "seed {seed}");
    let spine_steps = made.decisions.iter().filter(|decision| is_of_spine(&decision.step));
    assert!(spine_steps.count() <= 1, "seed {seed}");
    let is_changing = |id: &u64| survey.ranges[id].is_changing;
    assert!(!ranges.iter().any(is_changing), "seed {seed}: a changing range is in a step");
    assert!(made.decisions.iter().all(|decision| !decision.reason.is_empty()), "seed {seed}");
    check_transfers(seed, survey, made, policy.transfers_max);
}

fn check_transfers(seed: u64, survey: &Survey, made: &Plan, transfers_max: usize) {
    let is_transfer = |step: &Step| matches!(step, Step::TransferLeader { .. });
    let transfers = made.decisions.iter().filter(|decision| is_transfer(&decision.step));
    assert!(transfers.count() <= transfers_max, "seed {seed}");
    assert!(survey.ranges.contains_key(&0), "seed {seed}: the root range is never gone");
}

fn is_of_spine(step: &Step) -> bool {
    step.ranges().next().is_none()
}

/// Steps that nobody planned: what passes the check breaks nothing, from whatever state.
#[test]
fn no_step_that_passes_the_check_breaks_anything() {
    let mut passed_count = 0;
    for seed in 0..STEPS_SEEDS_COUNT {
        let mut chance = Chance::new(seed);
        let mut rehearsal = generate::rehearsal(&mut chance);
        for _ in 0..STEPS_COUNT {
            let step = generate::step(&mut chance, &rehearsal.survey);
            let before = rehearsal.survey.clone();
            if rehearsal.carry_out(&step).is_ok() {
                passed_count += 1;
                expect::nothing_broken(seed, &before, &rehearsal.survey, &rehearsal.policy, &step);
            } else {
                assert_eq!(rehearsal.survey, before, "seed {seed}: refused, but {step}");
            }
        }
    }
    assert!(passed_count > STEPS_SEEDS_COUNT, "only {passed_count} steps were tried");
}

/// A survey that makes no sense is planned for without a panic.
#[test]
fn nonsense_is_survived() {
    for seed in seeds() {
        let mut chance = Chance::new(seed);
        let mut rehearsal = generate::rehearsal(&mut chance);
        generate::garble(&mut chance, &mut rehearsal.survey, &mut rehearsal.policy);
        for _ in 0..5 {
            let plan = plan(&rehearsal.survey, &rehearsal.policy);
            for decision in &plan.decisions {
                // Steps were checked one after the other, as they are carried out.
                let answer = rehearsal.carry_out(&decision.step);
                assert_eq!(answer, Ok(()), "seed {seed}: {decision}");
            }
            rehearsal.settle();
            rehearsal.pass(rehearsal.round_ms);
        }
    }
}
