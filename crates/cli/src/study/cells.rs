//! The cells of a study as runs of a job: created, followed, found again.

use crate::client::call::{Patience, failure};
use crate::client::runs;
use crate::commands::train::create_run;
use crate::progress::Progress;
use crate::report::percent;
use crate::terminal::say;
use anyhow::bail;
use domain::ids::RunId;
use domain::records::{Distillation, Run};
use domain::run::RunPlan;
use domain::state::RunState;
use domain::study::Cell;
use std::collections::VecDeque;
use std::time::Duration;
use wire::Channel;

/// Most runs of a job among which the ones of an earlier call are found without asking for each.
const RUNS_MAX: usize = 5_000;
/// How often runs are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The runs of a study.
pub(crate) struct Study<'a> {
    channel: &'a Channel,
    job: &'a Distillation,
    known: Vec<Run>,
    progress: Progress,
}

impl<'a> Study<'a> {
    /// A study of a job's ledger, with the runs of earlier calls.
    pub(crate) async fn open(channel: &'a Channel, job: &'a Distillation) -> anyhow::Result<Self> {
        let known = runs::list(channel, job.id, RUNS_MAX).await.map_err(failure)?;
        Ok(Self { channel, job, known, progress: Progress::start("study") })
    }

    /// Its name: the job's.
    pub(crate) fn name(&self) -> &str {
        &self.job.spec.name
    }

    /// What a cell's run does.
    pub(crate) fn plan(&self, cell: Cell) -> RunPlan {
        cell.plan(self.name(), &self.job.spec)
    }

    /// Whether an earlier call trained it.
    pub(crate) fn is_trained(&self, cell: Cell) -> bool {
        self.trained(&self.plan(cell)).is_some()
    }

    fn trained(&self, plan: &RunPlan) -> Option<&Run> {
        self.known.iter().find(|run| run.state == RunState::Succeeded && run.plan == *plan)
    }

    /// Trains every cell; a run that succeeded in an earlier call is its cell's. At most `ahead`
    /// of them wait for a trainer. In the order of `cells`.
    pub(crate) async fn train(mut self, cells: &[Cell], ahead: usize) -> anyhow::Result<Vec<(Cell, Run)>> {
        let mut waiting: VecDeque<Cell> = cells.iter().copied().collect();
        let mut open: VecDeque<(Cell, RunId)> = VecDeque::new();
        let mut done = Vec::with_capacity(cells.len());
        while done.len() < cells.len() {
            while open.len() < ahead
                && let Some(cell) = waiting.pop_front()
            {
                open.push_back((cell, self.begin(&self.plan(cell)).await?));
            }
            // They are trained in the order in which they were created.
            let Some((cell, id)) = open.pop_front() else { break };
            let run = self.end(id, (done.len(), cells.len())).await?;
            let accuracy = run.result.as_ref().and_then(|result| result.test);
            let accuracy = accuracy.map_or_else(|| "not measured".to_owned(), |test| percent(test.value()));
            let place = done.len() + 1;
            say(&format!("cell {place} of {}: {}: {accuracy}", cells.len(), cell.name()));
            done.push((cell, run));
        }
        self.progress.finish(&format!("{} students trained", done.len()));
        Ok(done)
    }

    /// A run that does this, at its end.
    pub(crate) async fn run(&mut self, plan: &RunPlan) -> anyhow::Result<Run> {
        let id = self.begin(plan).await?;
        self.end(id, (0, 1)).await
    }

    /// The run that does this, created where there is none.
    async fn begin(&self, plan: &RunPlan) -> anyhow::Result<RunId> {
        match self.trained(plan) {
            Some(run) => Ok(run.id),
            None => Ok(create_run(self.channel, self.job, plan).await?.id),
        }
    }

    /// Waits for the end of a run, the next after `done` of `total`.
    async fn end(&mut self, id: RunId, (done, total): (usize, usize)) -> anyhow::Result<Run> {
        let mut patience = Patience::default();
        loop {
            match runs::get(self.channel, id).await {
                Ok(run) => {
                    patience.restored();
                    let cell = run.plan.purpose.study_and_cell().1;
                    match run.state {
                        RunState::Succeeded => return Ok(run),
                        RunState::Failed | RunState::Cancelled => {
                            bail!("cell {cell} is {}: {}", run.state, run.reason)
                        }
                        RunState::Pending | RunState::Leased => {
                            let steps = run.plan.training.steps;
                            let words = format!("{cell}: step {} of {steps}", run.step);
                            self.progress.update(done as u64, total as u64, "cells", &words);
                        }
                    }
                }
                Err(status) => patience.wait(status).await.map_err(failure)?,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
