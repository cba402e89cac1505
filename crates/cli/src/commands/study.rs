//! `distillery study`: whether rationales help, from a specification to its page.

use super::run;
use crate::args::StudyArguments;
use crate::client::call::failure;
use crate::client::jobs::{self, Found};
use crate::exit::{Interrupted, Usage};
use crate::job::{self, Again};
use crate::place::Place;
use crate::report::grouped;
use crate::shown;
use crate::spec_file::{self, SpecFile};
use crate::study::cells::Study;
use crate::study::pace::Pace;
use crate::study::page::Page;
use crate::study::{evidence, files, words};
use crate::terminal::{print_json, print_line, print_lines, say, table_text};
use app::config::Config;
use app::local::Scope;
use domain::Violation;
use domain::records::Distillation;
use domain::spec::{Start, TeacherSource};
use domain::study::{Grid, Results, expected_error, smallest_difference};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often two arms are expected to disagree before anything is measured, and how much of that their seeds have in common.
const DISCORDANCE: f64 = 0.2;
const SHARED: f64 = 0.3;

/// What was asked for, besides the specification's own.
struct Asked<'a> {
    /// The specification as it was typed.
    specification: &'a str,
    grid: &'a Grid,
    /// When it has to be over.
    until: Option<Instant>,
    out: &'a Path,
}

/// What a study came to.
struct Conducted {
    results: Results,
    bill: Value,
}

/// See [`crate::args::Verb::Study`].
pub(crate) async fn study(
    config: Config,
    arguments: StudyArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let file = spec_file::read(&arguments.spec)?;
    // For the page: what it shows is what was read.
    let specification = std::fs::read_to_string(&arguments.spec)?;
    let grid = Grid::new(&file.spec, &file.study).map_err(|found| file.mistakes(found))?;
    if arguments.server.url().is_none()
        && let Some(TeacherSource::Profile(name)) = file.spec.teacher.as_ref().map(|teacher| &teacher.source)
        && let Some(why) = app::local::teacher_without_key(&config, name)
    {
        return Err(file.mistakes(vec![Violation::new("teacher.profile", why)]).into());
    }
    let out = arguments.out.unwrap_or_else(|| config.data_dir.join("studies").join(&file.spec.name));
    let until = arguments.within.and_then(|within| Instant::now().checked_add(within));
    let asked = Asked { specification: &specification, grid: &grid, until, out: &out };
    let place = Place::open(config, &arguments.server, Scope::DISTIL, shutdown.clone()).await?;
    let ended = tokio::select! {
        ended = conduct(&place, file, &asked) => ended,
        () = shutdown.cancelled() => {
            Err(Interrupted("interrupted: run the same command again to resume".to_owned()).into())
        }
        failed = place.failed() => Err(failed),
    };
    place.close().await?;
    let found = ended?;
    if arguments.json {
        let folder = out.display().to_string();
        return print_json(&json!({"folder": folder, "results": found.results, "bill": found.bill}));
    }
    show(&found, &out)
}

async fn conduct(place: &Place, mut file: SpecFile, asked: &Asked<'_>) -> anyhow::Result<Conducted> {
    let (channel, grid) = (place.channel(), asked.grid);
    if let (Some(folder), Start::Base { name }) = (&file.init, &file.spec.start) {
        let registered = place.register_base(name, folder).await;
        file.spec.start = Start::Base { name: registered.map_err(|error| file.refused_init(error))? };
    }
    let dataset = job::dataset(channel, &mut file).await?.id;
    let test_rows = evidence::test_rows(channel, dataset, &file.spec.task).await?;
    if test_rows.is_empty() {
        let words = "has no row with a label: a study measures its students against labels of test rows";
        return Err(file.mistakes(vec![Violation::new("data.test", words)]).into());
    }
    say(&expected(grid, test_rows.len() as u64));
    let job = harvest(place, &file, dataset).await?;
    let mut study = Study::open(channel, &job).await?;
    let fitting = match asked.until {
        Some(until) => within(&mut study, grid, until, test_rows.len() as u64).await?,
        None => grid.clone(),
    };
    let grid = &fitting;
    let cells = study.train(&grid.cells(), place.cells_ahead()).await?;
    let (students, milliseconds) = evidence::of_students(place, &cells, &job.spec.task, &test_rows).await?;
    let teacher = evidence::of_teacher(channel, &job, &test_rows).await?;
    let results = Results::of(grid, &job.spec.name, &job.spec.task.name, &students, teacher.as_ref());
    let results = results.map_err(|words| anyhow::anyhow!("the study has no result: {words}"))?;
    let Found { harvest, .. } = jobs::get(channel, job.id).await.map_err(failure)?;
    let bill = files::bill(&harvest, &job.seconds, &cells, &milliseconds);
    let inputs = test_rows.into_iter().map(|(row, known)| (row, known.input)).collect();
    let page = Page {
        results: &results,
        bill: &bill,
        students: &students,
        inputs: &inputs,
        specification: asked.specification,
    };
    files::write(asked.out, &page, teacher.as_ref())?;
    Ok(Conducted { results, bill })
}

/// The largest part of the grid that is trained by a time, from ten steps of a student.
async fn within(study: &mut Study<'_>, grid: &Grid, until: Instant, rows: u64) -> anyhow::Result<Grid> {
    let pace = Pace::measure(study, grid).await?;
    let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
    let needed = |grid: &Grid| pace.of(grid.cells().into_iter().filter(|cell| !study.is_trained(*cell)));
    let minutes = |seconds: f64| format!("{:.1} minutes", seconds / 60.0);
    let whole = needed(grid);
    let Some(fitting) = grid.clone().fitting(|grid| needed(grid) <= left) else {
        let least = grid.clone().fitting(|grid| grid.smaller().is_none());
        let words = format!(
            "--within: {} are left, the grid takes about {}, and its smallest part about {}: give it more time, or fewer \
             `training.steps`",
            minutes(left),
            minutes(whole),
            minutes(least.as_ref().map_or(whole, needed)),
        );
        return Err(Usage(words).into());
    };
    if fitting == *grid {
        say(&format!("the grid takes about {} of the {} that are left", minutes(whole), minutes(left)));
    } else {
        let (fractions, seeds) = (fitting.millionths.len(), fitting.seeds.len());
        say(&format!(
            "the grid takes about {}, and {} are left: what fits is {fractions} fractions, {seeds} seeds and {} sizes, in about {}",
            minutes(whole),
            minutes(left),
            fitting.sizes.len(),
            minutes(needed(&fitting)),
        ));
        say(&expected(&fitting, rows));
    }
    Ok(fitting)
}

/// The job over whose ledger the study trains: harvested as `run` does, with its own student.
async fn harvest(
    place: &Place,
    file: &SpecFile,
    dataset: domain::ids::DatasetId,
) -> anyhow::Result<Distillation> {
    let (channel, began) = (place.channel(), run::now()?);
    let id = job::submit_again(channel, file, dataset, Again::Same).await?.id;
    shown::follow(channel, id, 0, Some(began)).await?;
    job::report(channel, id).await?.outcome.succeeded()?;
    Ok(jobs::get(channel, id).await.map_err(failure)?.job)
}

/// What the study will be able to tell.
fn expected(grid: &Grid, rows: u64) -> String {
    let (cells, questions) = (grid.cells().len(), grid.questions().len());
    let error = expected_error(rows, grid.seeds.len(), DISCORDANCE, SHARED);
    let hint = match grid.seeds.len() {
        1 => "; with one seed, nothing is said of other seeds",
        _ => "",
    };
    format!(
        "{cells} students, {questions} questions, {} test rows: a difference of {:.1} points is found in four of five such \
         studies, if students disagree on {:.0}% of the rows{hint}",
        grouped(rows),
        100.0 * smallest_difference(error, questions),
        100.0 * DISCORDANCE,
    )
}

fn show(found: &Conducted, out: &Path) -> anyhow::Result<()> {
    let (results, bill) = (&found.results, &found.bill);
    print_lines(&table_text(&words::SETTINGS, words::settings(results)))?;
    print_lines(&table_text(&words::QUESTIONS, words::questions(results)))?;
    for sentence in words::sentences(results).into_iter().chain(words::kept(results, bill)) {
        print_line(&sentence)?;
    }
    print_line(&words::power(results))?;
    let count = |name: &str| grouped(bill.get(name).and_then(Value::as_u64).unwrap_or(0));
    print_line(&format!(
        "calls {} ({} answers from the store), tokens in {}, out {}",
        count("calls"),
        count("cache_hits"),
        count("tokens_in"),
        count("tokens_out"),
    ))?;
    let path = |name: &str| out.join(name).display().to_string();
    print_line(&format!("results: {}", path(files::RESULTS)))?;
    print_line(&format!("page: {}", path(files::PAGE)))
}
