//! The learning rate, step by step.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail loudly too, and tests have their own environment"
)]

mod common;

use domain::objective::Objective;
use domain::spec::Schedule;
use trainer::schedule::learning_rate;

/// `rates` are (step, learning rate) where the peak is 1.
fn check(schedule: Schedule, warmup: u32, steps: u32, rates: &[(u64, f64)]) {
    let spec = common::spec("equation", Objective::Standard, |training| {
        training.schedule = Some(schedule);
        training.steps = Some(steps);
    });
    // A warm-up longer than the training is no mistake of arithmetic, whoever allows it.
    let mut training = spec.training;
    (training.warmup_steps, training.learning_rate) = (warmup, 1.0);
    for (step, expected) in rates {
        let found = learning_rate(&training, *step);
        assert!(
            (found - expected).abs() < 1e-12,
            "{schedule} after {warmup} of {steps}: {step} gives {found}"
        );
        training.learning_rate = 3e-4;
        assert!((learning_rate(&training, *step) - 3e-4 * expected).abs() < 1e-12, "the peak scales it");
        training.learning_rate = 1.0;
    }
}

#[test]
fn it_stays() {
    check(Schedule::Constant, 4, 10, &[(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (9, 1.0)]);
    check(Schedule::Constant, 0, 10, &[(0, 1.0), (9, 1.0)]);
}

#[test]
fn it_falls_in_a_straight_line() {
    check(Schedule::Linear, 0, 10, &[(0, 1.0), (1, 0.9), (5, 0.5), (9, 0.1), (10, 0.0), (12, 0.0)]);
    check(Schedule::Linear, 2, 12, &[(0, 0.5), (1, 1.0), (2, 1.0), (3, 0.9), (11, 0.1)]);
}

#[test]
fn it_falls_along_a_cosine() {
    let half = std::f64::consts::FRAC_1_SQRT_2;
    check(
        Schedule::Cosine,
        0,
        8,
        &[(0, 1.0), (2, 0.5 + half / 2.0), (4, 0.5), (6, 0.5 - half / 2.0), (8, 0.0), (99, 0.0)],
    );
    check(Schedule::Cosine, 4, 12, &[(0, 0.25), (3, 1.0), (4, 1.0), (8, 0.5)]);
}

#[test]
fn it_falls_with_the_square_root() {
    check(Schedule::InverseSquareRoot, 4, 100, &[(0, 0.25), (3, 1.0), (15, 0.5), (63, 0.25), (99, 0.2)]);
    check(Schedule::InverseSquareRoot, 0, 100, &[(0, 1.0), (3, 0.5), (99, 0.1)]);
}

#[test]
fn a_training_shorter_than_its_warm_up_climbs_to_its_end() {
    for schedule in Schedule::ALL {
        check(*schedule, 10, 4, &[(0, 0.1), (1, 0.2), (3, 0.4)]);
        check(*schedule, 4, 4, &[(0, 0.25), (3, 1.0)]);
    }
}
