//! `distillery init`: from a file of rows to a specification and a task.

mod columns;
mod files;
mod proposal;
mod rationales;

use crate::args::{InitArguments, Place};
use crate::exit::{Interrupted, Usage, mistakes};
use crate::next;
use crate::report::grouped;
use crate::spec_file;
use crate::task_file::NamedTask;
use crate::terminal::{self, print_line, say};
use crate::upload::format_of;
use app::config::Config;
use columns::Chosen;
use domain::label::Comparison;
use domain::spec::{PROFILE_IMPORTED, PROFILE_NONE, is_name};
use domain::task::{LabelSet, PLACEHOLDER};
use proposal::{HeldOut, Proposal, Student};
use readers::{Sample, Value};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// Rows that are looked at.
const ROWS_MAX: usize = 10_000;
/// The profile that is proposed.
const PROFILE: &str = "local";

/// See [`crate::args::Verb::Init`].
pub(crate) async fn init(
    config: Config,
    place: Place,
    arguments: InitArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (data, format) = (arguments.data.clone(), format_of(&arguments.data)?);
    let out = Out::of(&arguments)?;
    let sample = tokio::task::spawn_blocking(move || readers::sample(&data, format, ROWS_MAX)).await?;
    let sample = sample.map_err(mistakes)?;
    let profiles = config.teachers.keys().cloned().collect();
    let person = Person { is_there: !arguments.yes && terminal::can_ask(), profiles };
    print_line(&heard(&arguments.data, &sample))?;
    let mut proposal = person.proposal(&arguments, &out, &sample)?;
    print_proposal(&proposal)?;
    if proposal.is_taught() {
        let asks =
            person.agrees(&format!("ask `{}` now why the exemplars have their labels", proposal.profile))?;
        let rationales = if asks { rationales::ask(config, &proposal, &shutdown).await? } else { Vec::new() };
        person.rationales(&mut proposal, rationales)?;
    }
    out.write(&proposal, &arguments.data)?;
    print_end(&place, &proposal, &out)
}

/// What is known of the file.
fn heard(data: &Path, sample: &Sample) -> String {
    let rows = if sample.is_whole {
        format!("{} rows", grouped(sample.rows_about))
    } else {
        format!(
            "about {} rows, of which {} were read",
            grouped(sample.rows_about),
            grouped(sample.rows as u64)
        )
    };
    format!("{}: {rows}, with the columns {}", data.display(), columns::names(sample))
}

/// Where the files go, and under which name.
struct Out {
    name: String,
    folder: PathBuf,
}

impl Out {
    fn of(arguments: &InitArguments) -> anyhow::Result<Self> {
        let stem =
            arguments.data.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let name = spec_file::name_of(&stem, "rows");
        let folder = arguments.out.clone().unwrap_or_else(|| PathBuf::from(&name));
        let out = Self { name, folder };
        if out.folder.exists() && !out.folder.is_dir() {
            let words = "is a file: name a folder with --out, which is made where it is absent";
            return Err(Usage(format!("{}: {words}", out.folder.display())).into());
        }
        let there: Vec<String> = [out.spec(), out.task()]
            .iter()
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        if !there.is_empty() && !arguments.force {
            let words = "exists: nothing is overwritten without --force; --out names another folder";
            return Err(Usage(format!("{} {words}", there.join(" and "))).into());
        }
        Ok(out)
    }

    fn spec(&self) -> PathBuf {
        self.folder.join(files::SPEC)
    }

    fn task(&self) -> PathBuf {
        self.folder.join(files::TASK)
    }

    /// Writes both files, the specification last: where it is, the task is too.
    fn write(&self, proposal: &Proposal, data: &Path) -> anyhow::Result<()> {
        let data = files::relative(data, &self.folder);
        let failed = |path: &Path, error: std::io::Error| {
            anyhow::anyhow!("{} cannot be written: {error}", path.display())
        };
        std::fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        for (path, text) in
            [(self.task(), files::task(proposal)), (self.spec(), files::spec(proposal, &data))]
        {
            let part = path.with_extension("toml.part");
            let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path));
            written.map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// Who answers, or nobody, and then every proposal is taken.
struct Person {
    is_there: bool,
    /// The teachers of this configuration.
    profiles: Vec<String>,
}

impl Person {
    fn ask(&self, question: &str, proposal: &str) -> anyhow::Result<String> {
        if !self.is_there {
            return Ok(proposal.to_owned());
        }
        let answer = terminal::ask(question, proposal)?;
        answer.ok_or_else(|| Interrupted("interrupted: nothing is written".to_owned()).into())
    }

    fn agrees(&self, question: &str) -> anyhow::Result<bool> {
        Ok(self.ask(question, "yes")?.to_lowercase().starts_with('y'))
    }

    fn proposal(&self, arguments: &InitArguments, out: &Out, sample: &Sample) -> anyhow::Result<Proposal> {
        let chosen = self.columns(arguments, sample)?;
        let refused = |words: String| Usage(format!("{}: {words}", arguments.data.display()));
        let label = chosen.label.as_deref().and_then(|name| sample.column(name));
        let label = label.ok_or_else(|| refused(columns::no_label(sample, &chosen)))?;
        let labels = columns::labels(label, chosen.choices.is_some()).map_err(refused)?;
        let is_partly_labelled = label.cells.contains(&Value::Absent);
        let held_out = HeldOut::of(sample, &chosen);
        let exemplars = proposal::exemplars(sample, &chosen, &labels, held_out);
        let size = arguments.size.map(Into::into);
        let student = Student::of(sample.rows_about, held_out, size);
        let profile = match arguments.profile.clone() {
            Some(profile) if is_name(&profile) && profile != PROFILE_IMPORTED => profile,
            Some(profile) => {
                let words = "is not the name of a teacher profile: `distillery config` prints them";
                return Err(Usage(format!("--profile: `{profile}` {words}")).into());
            }
            None => self.profile()?,
        };
        let mut proposal = Proposal {
            name: out.name.clone(),
            chosen,
            labels,
            is_partly_labelled,
            rows: sample.rows_about,
            held_out,
            exemplars,
            profile,
            student,
        };
        if !proposal.is_taught() {
            proposal.exemplars.clear();
        }
        Ok(proposal)
    }

    /// Asks for a teacher profile until there can be one of that name.
    fn profile(&self) -> anyhow::Result<String> {
        loop {
            let profile = self.ask("teacher profile, or `none` for labels alone", PROFILE)?;
            if profile == PROFILE_NONE || self.profiles.contains(&profile) {
                return Ok(profile);
            }
            say(&format!(
                "there is no teacher profile `{profile}`: there are {}, and `none`",
                self.profiles.join(", ")
            ));
        }
    }

    /// The columns that are named, or proposed and agreed to.
    fn columns(&self, arguments: &InitArguments, sample: &Sample) -> anyhow::Result<Chosen> {
        let named =
            [("input", &arguments.input), ("label", &arguments.label), ("choices", &arguments.choices)];
        for (flag, name) in named {
            if let Some(name) = name.as_deref().filter(|name| sample.column(name).is_none()) {
                return Err(Usage(columns::no_column(sample, flag, name)).into());
            }
        }
        let [input, label, choices] = named.map(|(_, name)| name.clone());
        let mut chosen = Chosen { input, label, choices, split: None };
        chosen.split = columns::split(sample).filter(|name| {
            ![&chosen.input, &chosen.label, &chosen.choices].into_iter().flatten().any(|known| known == name)
        });
        chosen.choices = match chosen.choices.take() {
            Some(name) => Some(name),
            None => self.column(sample, "choices", columns::choices(sample, &chosen), true)?,
        };
        chosen.input = match chosen.input.take() {
            Some(name) => Some(name),
            None => self.column(sample, "text", columns::input(sample, &chosen), false)?,
        };
        if chosen.input.is_none() {
            return Err(Usage(format!("{}: {}", arguments.data.display(), columns::no_input(sample))).into());
        }
        chosen.label = match chosen.label.take() {
            Some(name) => Some(name),
            None => self.column(sample, "label", columns::label(sample, &chosen), false)?,
        };
        let names = [&chosen.input, &chosen.label, &chosen.choices].map(|name| name.clone());
        let twice = names
            .iter()
            .flatten()
            .find(|name| names.iter().flatten().filter(|other| other == name).count() > 1);
        match twice {
            Some(name) => {
                Err(Usage(format!("column `{name}` is named for two fields: one column is one field")).into())
            }
            None => Ok(chosen),
        }
    }

    /// Asks for a column until there is one of that name.
    fn column(
        &self,
        sample: &Sample,
        what: &str,
        proposed: Option<String>,
        is_optional: bool,
    ) -> anyhow::Result<Option<String>> {
        if !self.is_there || (is_optional && proposed.is_none()) {
            return Ok(proposed);
        }
        loop {
            let none = if is_optional { ", or - for none" } else { "" };
            let question = format!("column of the {what}{none}");
            let answer = self.ask(&question, proposed.as_deref().unwrap_or_default())?;
            if is_optional && answer == "-" || answer.is_empty() {
                return Ok(None);
            }
            if sample.column(&answer).is_some() {
                return Ok(Some(answer));
            }
            say(&format!("there is no column `{answer}`: the columns are {}", columns::names(sample)));
        }
    }

    /// Writes down what the teacher said; where it said nothing, a person is asked, and where nobody says anything the
    /// placeholder stays.
    fn rationales(&self, proposal: &mut Proposal, asked: rationales::Rationales) -> anyhow::Result<()> {
        if let Some(Err(why)) = asked.iter().find(|said| said.is_err()) {
            say(&format!("`{}` gave no rationale: {why}", proposal.profile));
        }
        let mut asked = asked.into_iter();
        for place in 0..proposal.exemplars.len() {
            let rationale = match asked.next() {
                Some(Ok(rationale)) => Some(rationale),
                Some(Err(_)) | None => self.typed(proposal, place)?,
            };
            if let (Some(exemplar), Some(rationale)) = (proposal.exemplars.get_mut(place), rationale) {
                exemplar.rationale = rationale;
            }
        }
        Ok(())
    }

    /// What a person gives as the reason; `None` for nothing.
    fn typed(&self, proposal: &Proposal, place: usize) -> anyhow::Result<Option<String>> {
        let Some(exemplar) = proposal.exemplars.get(place).filter(|_| self.is_there) else { return Ok(None) };
        say(&exemplar.input);
        let question = format!(
            "why is it `{}`? One or two sentences, or nothing to write it into the file later",
            exemplar.label
        );
        loop {
            let typed = self.ask(&question, "")?;
            let fitting = proposal.fitting(place, &typed);
            if fitting.is_some() || typed.is_empty() {
                return Ok(fitting);
            }
            say(&format!("that cannot be read back: give the reason alone, without `{}`", proposal.marker()));
        }
    }
}

fn print_proposal(proposal: &Proposal) -> anyhow::Result<()> {
    let chosen = &proposal.chosen;
    let column = |name: &Option<String>| {
        name.as_deref().map_or_else(|| "none".to_owned(), |name| format!("column `{}`", columns::shown(name)))
    };
    print_line(&format!("  text:     {}", column(&chosen.input)))?;
    let missing = if proposal.is_partly_labelled { "; some rows have none" } else { "" };
    print_line(&format!("  label:    {}, {}{missing}", column(&chosen.label), proposal.labels_in_words()))?;
    print_line(&format!("  choices:  {}", column(&chosen.choices)))?;
    let percent = |share: f64| format!("{}%", (share * 100.0).round());
    let held = [("validation", proposal.held_out.validation), ("test", proposal.held_out.test)];
    let held: Vec<String> =
        held.iter().filter_map(|(name, share)| Some(format!("{} {name}", percent((*share)?)))).collect();
    let held = if held.is_empty() {
        String::new()
    } else {
        format!("{} by a hash of the text, stratified", held.join(", "))
    };
    let own = chosen.split.as_deref().map(|name| format!("column `{}`", columns::shown(name)));
    let split: Vec<String> = own.into_iter().chain((!held.is_empty()).then_some(held)).collect();
    print_line(&format!("  split:    {}", split.join("; ")))?;
    print_line(&format!("  task:     {}", kind(proposal)))?;
    let student = proposal.student;
    print_line(&format!("  student:  {}, at most {} steps", student.size, grouped(student.steps)))?;
    print_line(&format!("  teacher:  {}", proposal.profile))
}

/// What the task is, in words.
fn kind(proposal: &Proposal) -> String {
    let task = proposal.task();
    let what = match (&task.labels, task.metric) {
        (LabelSet::Closed(_), _) => "classification",
        (LabelSet::Choices, _) => "multiple choice",
        (LabelSet::Open, Comparison::Equation) => "word problems",
        (LabelSet::Open, Comparison::Text) => "questions and answers",
    };
    let exemplars = proposal.exemplars.len();
    format!("{what}, {exemplars} exemplars, answers end in \"{} ...\"", proposal.marker())
}

fn print_end(place: &Place, proposal: &Proposal, out: &Out) -> anyhow::Result<()> {
    let (spec, task) = (out.spec().display().to_string(), out.task().display().to_string());
    print_line(&format!("wrote {spec} and {task}"))?;
    // What `plan` and `run` say of the files, said at once.
    if let Err(words) = NamedTask::find(&task, &out.task()).and_then(NamedTask::sound) {
        let is_open = proposal.exemplars.iter().any(|exemplar| exemplar.rationale.starts_with(PLACEHOLDER));
        anyhow::ensure!(is_open, "{task} cannot be read back: {words}");
        print_line("edit first, or `plan` and `run` refuse the task:")?;
        for line in words.lines() {
            print_line(&format!("  {line}"))?;
        }
    } else {
        spec_file::read(&out.spec())?;
    }
    print_line("next:")?;
    for line in [
        next::command(place, &["plan", &spec]),
        next::command(place, &["run", &spec]),
        next::command(place, &["study", &spec]),
        next::predict(place, &proposal.name, &proposal.task()),
    ] {
        print_line(&format!("  {line}"))?;
    }
    Ok(())
}
