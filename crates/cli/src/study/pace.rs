//! How long students take: ten steps and an evaluation, measured, for `--within`.

use super::cells::Study;
use domain::spec::StudentSize;
use domain::study::{Arm, Cell, Grid, Setting};
use std::collections::HashMap;
use std::time::Instant;

/// Steps of a measurement.
const STEPS: u32 = 10;

/// Seconds that a student takes, by whether it learns rationales and by its size.
pub(crate) struct Pace(HashMap<(bool, Option<StudentSize>), f64>);

impl Pace {
    /// Trains one student for ten steps for each size, without and with rationales, on all rows.
    pub(crate) async fn measure(study: &mut Study<'_>, grid: &Grid) -> anyhow::Result<Self> {
        let mut paces = HashMap::new();
        let explained = grid.arms.iter().copied().find(|arm| *arm != Arm::NONE).unwrap_or(Arm::NONE);
        let millionths = grid.millionths.last().copied().unwrap_or_default();
        let seed = grid.seeds.first().copied().unwrap_or_default();
        for size in &grid.sizes {
            for arm in [Arm::NONE, explained] {
                let cell = Cell { setting: Setting { arm, millionths, size: *size }, seed };
                paces.insert((arm != Arm::NONE, *size), seconds(study, cell).await?);
            }
        }
        Ok(Self(paces))
    }

    /// Seconds of these cells, one after the other.
    pub(crate) fn of(&self, cells: impl IntoIterator<Item = Cell>) -> f64 {
        let pace = |cell: Cell| {
            self.0.get(&(cell.setting.arm != Arm::NONE, cell.setting.size)).copied().unwrap_or(0.0)
        };
        cells.into_iter().map(pace).sum()
    }
}

/// What a cell takes, from its first ten steps: its steps and validations in proportion, its start and its measurement once.
async fn seconds(study: &mut Study<'_>, cell: Cell) -> anyhow::Result<f64> {
    let mut plan = study.plan(cell);
    let training = plan.training.clone();
    plan.training.steps = STEPS.min(training.steps);
    plan.training.warmup_steps = plan.training.warmup_steps.min(plan.training.steps);
    plan.training.evaluate_every_steps = plan.training.steps;
    plan.training.checkpoint_every_steps = plan.training.steps;
    plan.training.patience = 0;
    let name = format!("pace-{}", cell.name());
    plan.purpose = domain::run::RunPurpose::Cell { study: study.name().to_owned(), cell: name };
    let began = Instant::now();
    let run = study.run(&plan).await?;
    let took = began.elapsed();
    let result = run.result.as_ref();
    let trained = result.map_or(0.0, |result| result.train_seconds);
    let evaluated = result.map_or(0.0, |result| result.evaluate_seconds);
    let steps = f64::from(training.steps) / f64::from(plan.training.steps.max(1));
    // A run of an earlier call took no time in this one.
    let other = (took.as_secs_f64() - trained - evaluated).max(0.0);
    Ok(trained * steps + evaluated + other)
}
