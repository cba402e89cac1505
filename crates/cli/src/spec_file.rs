//! A specification as a user writes it: a TOML file. Every mistake is named with file, line and field, all at once.

use crate::known_keys::{kind, known_keys, unknown_key, unknown_keys};
use crate::spec_data::{self, Data};
use app::base::Refused;
use app::toml_lines::{TomlLines, line_of};
use domain::Violation;
use domain::spec::{
    Draft, JudgingDraft, SECTIONS, Section, Spec, StudentDraft, StudyDraft, StudySpec, TeacherDraft,
    TrainingDraft, suggestion,
};
use domain::task::{AnswerPattern, BUILT_IN, Exemplar, Task};
use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Largest specification or task file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A specification with the paths that only the command line knows.
#[derive(Debug)]
pub(crate) struct SpecFile {
    /// The specification; `start` names a base model called [`SpecFile::init`]'s folder name where there is one.
    pub(crate) spec: Spec,
    /// The specification for rows of which none has a label, where the file leaves it to them.
    pub(crate) over_unlabelled_rows: Option<Spec>,
    /// Where the rows come from.
    pub(crate) data: Data,
    /// What a study of it tries; only a study checks it further.
    pub(crate) study: StudySpec,
    /// The checkpoint folder to start from, to be registered under the base name in `spec`.
    pub(crate) init: Option<PathBuf>,
    path: PathBuf,
    lines: TomlLines,
}

/// Everything that is wrong with a file.
#[derive(Debug)]
pub(crate) struct SpecError {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

#[derive(Debug)]
struct Mistake {
    line: usize,
    violation: Violation,
}

impl fmt::Display for SpecError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let end = if index + 1 == self.mistakes.len() { "" } else { "\n" };
            write!(formatter, "{}:{}: {}{end}", self.file.display(), mistake.line, mistake.violation)?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecError {}

impl SpecFile {
    /// Mistakes that show only elsewhere (with the rows, at the server, in the folder to start from), each with its line
    /// here.
    pub(crate) fn mistakes(&self, violations: Vec<Violation>) -> SpecError {
        let located = violations.into_iter().map(|violation| {
            let (anchor, field) = match violation.field.as_str() {
                "dataset_id" => ("data", "data"),
                "student.base" if self.init.is_some() => ("student.init", "student.init"),
                rows if rows.starts_with("rows") => ("data", rows),
                other => (other, other),
            };
            let line = self.lines.line(anchor);
            Mistake { line, violation: Violation::new(field, violation.message) }
        });
        SpecError { file: self.path.clone(), mistakes: located.collect() }
    }

    /// Why the folder to start from was not taken: the user's mistake with its line, or another error.
    pub(crate) fn refused_init(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<Refused>() {
            Ok(refused) => self.mistakes(vec![Violation::new("student.init", refused.to_string())]).into(),
            Err(error) => error,
        }
    }
}

/// Reads and checks a specification.
///
/// # Errors
/// All mistakes at once, each with file, line and field.
pub(crate) fn read(path: &Path) -> Result<SpecFile, SpecError> {
    let text = read_text(path).map_err(|message| SpecError::whole(path, message))?;
    let source = Source::parse(path, &text)?;
    source.spec_file()
}

/// The built-in task called `name`, or the one in the file at `path`, where that is what the name is.
///
/// # Errors
/// It is neither, or the file is no task.
pub(crate) fn task_of(name: &str, path: &Path) -> Result<Task, String> {
    if let Some(task) = Task::built_in(name) {
        return Ok(task);
    }
    if name.ends_with(".toml") {
        return read_task(path);
    }
    let near = suggestion(name, BUILT_IN.iter().copied())
        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    Err(format!(
        "`{name}` is neither a built-in task ({}) nor a path that ends in .toml{near}",
        BUILT_IN.join(", ")
    ))
}

/// Reads a task from a TOML file of its own. An unknown key is refused, the first by its line.
fn read_task(path: &Path) -> Result<Task, String> {
    let text = read_text(path)?;
    let broken = |error: toml::de::Error| {
        let line = line_of(&text, error.span().map_or(0, |span| span.start));
        format!("{}:{line}: {}", path.display(), error.message())
    };
    let table = text.parse::<Table>().map_err(broken)?;
    let lines = TomlLines::of(&text);
    let named =
        |violation: &Violation| format!("{}:{}: {violation}", path.display(), lines.line(&violation.field));
    let unknown = unknown_task_keys(&table).into_iter().min_by_key(|violation| lines.line(&violation.field));
    if let Some(violation) = unknown {
        return Err(named(&violation));
    }
    let task: Task = toml::from_str(&text).map_err(broken)?;
    let open: Vec<String> = task.placeholders().iter().map(named).collect();
    if open.is_empty() { Ok(task) } else { Err(open.join("; ")) }
}

/// The keys of a task file that no task has.
fn unknown_task_keys(table: &Table) -> Vec<Violation> {
    let mut found = unknown_keys(table, "", known_keys::<Task>());
    if let Some(Value::Table(answer)) = table.get("answer") {
        found.extend(unknown_keys(answer, "answer.", known_keys::<AnswerPattern>()));
    }
    if let Some(Value::Array(exemplars)) = table.get("exemplars") {
        for (index, exemplar) in exemplars.iter().filter_map(Value::as_table).enumerate() {
            let prefix = format!("exemplars[{index}].");
            found.extend(unknown_keys(exemplar, &prefix, known_keys::<Exemplar>()));
        }
    }
    found
}

fn read_text(path: &Path) -> Result<String, String> {
    let describe = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist: check the path".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let length = std::fs::metadata(path).map_err(describe)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("is {length} bytes long: a specification has at most {FILE_BYTES_MAX}"));
    }
    let bytes = std::fs::read(path).map_err(describe)?;
    String::from_utf8(bytes).map_err(|error| {
        format!("is not UTF-8 (byte {}): save it as UTF-8", error.utf8_error().valid_up_to())
    })
}

impl SpecError {
    fn whole(path: &Path, message: String) -> Self {
        Self {
            file: path.to_owned(),
            mistakes: vec![Mistake { line: 1, violation: Violation::new("file", message) }],
        }
    }
}

/// A parsed file: its values, and where each of them stands.
struct Source<'a> {
    path: &'a Path,
    table: Table,
    lines: TomlLines,
    mistakes: Vec<Mistake>,
}

/// The keys of a specification file outside [`SECTIONS`].
const KEYS: [&str; 3] = ["name", "task", "data"];

impl<'a> Source<'a> {
    fn parse(path: &'a Path, text: &str) -> Result<Self, SpecError> {
        let broken = |error: toml::de::Error| {
            let line = line_of(text, error.span().map_or(0, |span| span.start));
            let violation = Violation::new("file", format!("is not TOML: {}", error.message()));
            SpecError { file: path.to_owned(), mistakes: vec![Mistake { line, violation }] }
        };
        let table = text.parse::<Table>().map_err(broken)?;
        Ok(Self { path, table, lines: TomlLines::of(text), mistakes: Vec::new() })
    }

    fn spec_file(mut self) -> Result<SpecFile, SpecError> {
        self.refuse_unknown_sections();
        let name = self.text_of("name").unwrap_or_default();
        let task = self.task();
        let data = self.data();
        let init = self.take_init();
        let draft = Draft {
            name,
            task: task.unwrap_or_else(placeholder_task),
            teacher: self.section::<TeacherDraft>(TeacherDraft::SECTION),
            judging: self.section::<JudgingDraft>(JudgingDraft::SECTION),
            student: self.section::<StudentDraft>(StudentDraft::SECTION),
            training: self.section::<TrainingDraft>(TrainingDraft::SECTION),
        };
        let study = self.section::<StudyDraft>(StudyDraft::SECTION).resolve();
        let draft = self.with_base(draft, init.as_deref());
        let over_unlabelled_rows = draft.leaves_label_open().then(|| draft.clone().over_unlabelled_rows());
        let over_unlabelled_rows = over_unlabelled_rows.and_then(|draft| draft.resolve().ok());
        let resolved = draft.resolve();
        let spec = match resolved {
            Ok(spec) if self.mistakes.is_empty() => spec,
            Ok(_) => return Err(self.into_error()),
            Err(violations) => {
                for mut violation in violations {
                    if init.is_some() {
                        // The user wrote `init`, of which the base was made.
                        violation.message = violation.message.replace("`student.base`", "`student.init`");
                    }
                    self.complain_once(violation);
                }
                return Err(self.into_error());
            }
        };
        match data {
            Some(data) => {
                let (path, lines) = (self.path.to_owned(), self.lines);
                Ok(SpecFile { spec, over_unlabelled_rows, data, study, init, path, lines })
            }
            None => Err(self.into_error()),
        }
    }

    fn into_error(mut self) -> SpecError {
        self.mistakes.sort_by_key(|mistake| mistake.line);
        SpecError { file: self.path.to_owned(), mistakes: self.mistakes }
    }

    /// A section that did not parse at all would be complained about again by its missing values: once is enough.
    fn complain_once(&mut self, violation: Violation) {
        let known = |mistake: &Mistake| {
            mistake.violation.field == violation.field
                || violation.field.starts_with(&format!("{}.", mistake.violation.field))
        };
        if !self.mistakes.iter().any(known) {
            self.complain(violation);
        }
    }

    fn complain(&mut self, violation: Violation) {
        let line = self.lines.line(&violation.field);
        self.mistakes.push(Mistake { line, violation });
    }

    fn refuse_unknown_sections(&mut self) {
        let sections = SECTIONS.iter().map(|section| section.name).filter(|name| !name.contains('.'));
        let known: Vec<&str> = KEYS.into_iter().chain(sections).collect();
        for violation in unknown_keys(&self.table, "", &known) {
            self.complain(violation);
        }
    }

    fn text_of(&mut self, field: &str) -> Option<String> {
        let (value, table) = match field.split_once('.') {
            Some((section, key)) => (self.table.get(section).and_then(|table| table.get(key)), section),
            None => (self.table.get(field), ""),
        };
        match value {
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => {
                let message = format!("must be a string, and is {}", kind(other));
                self.complain(Violation::new(field, message));
                None
            }
            None if table.is_empty() => {
                self.complain(Violation::new(field, format!("is missing: add `{field} = \"...\"`")));
                None
            }
            None => None,
        }
    }

    fn task(&mut self) -> Option<Task> {
        let name = self.text_of("task")?;
        match task_of(&name, &self.relative(&name)) {
            Ok(task) => Some(task),
            Err(words) => {
                self.complain(Violation::new("task", words));
                None
            }
        }
    }

    fn data(&mut self) -> Option<Data> {
        let (data, found) = spec_data::read(self.table.get("data"), &self.relative(""));
        found.into_iter().for_each(|violation| self.complain(violation));
        data
    }

    /// Takes `student.init` out of the table: it is the command line's word, not the specification's.
    fn take_init(&mut self) -> Option<PathBuf> {
        let init = self.text_of("student.init");
        if let Some(Value::Table(student)) = self.table.get_mut("student") {
            student.remove("init");
        }
        init.map(|folder| self.relative(&folder))
    }

    fn with_base(&mut self, mut draft: Draft, init: Option<&Path>) -> Draft {
        let Some(folder) = init else { return draft };
        if draft.student.base.is_some() {
            self.complain(Violation::new("student.init", "contradicts `student.base`: remove one of them"));
        }
        draft.student.base = Some(base_name(folder));
        draft
    }

    fn relative(&self, file: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// One section, key by key, so that every wrong key and every wrong type is named.
    fn section<T: DeserializeOwned + Default>(&mut self, section: Section) -> T {
        let name = section.name;
        let table = match self.table.get(name) {
            None => return T::default(),
            Some(Value::Table(table)) => table.clone(),
            Some(other) => {
                let message = format!("must be a table ([{name}]), and is {}", kind(other));
                self.complain(Violation::new(name, message));
                return T::default();
            }
        };
        let mut sound = Table::new();
        for (key, value) in table {
            let field = format!("{name}.{key}");
            let alone = Value::Table(Table::from_iter([(key.clone(), value.clone())]));
            if let Some(message) = unknown_key(&key, section.fields.iter().map(|field| field.key)) {
                self.complain(Violation::new(field, message));
            } else if let Err(error) = T::deserialize(alone) {
                self.complain(Violation::new(field, error.message().lines().next().unwrap_or_default()));
            } else {
                self.refuse_unknown_keys_within(&field, &value);
                sound.insert(key, value);
            }
        }
        T::deserialize(Value::Table(sound)).unwrap_or_default()
    }

    /// Where `field` is a section of its own, such as `teacher.budget`.
    fn refuse_unknown_keys_within(&mut self, field: &str, value: &Value) {
        let section = SECTIONS.iter().find(|section| section.name == field);
        if let (Some(section), Value::Table(table)) = (section, value) {
            let known: Vec<&str> = section.fields.iter().map(|field| field.key).collect();
            for violation in unknown_keys(table, &format!("{field}."), &known) {
                self.complain(violation);
            }
        }
    }
}

/// Keeps the checks of the other fields going when the task is broken; never leaves this module.
fn placeholder_task() -> Task {
    Task::built_in("generate").unwrap_or_else(|| Task {
        name: "generate".into(),
        instruction: String::new(),
        template: "{{ example.input }}".into(),
        exemplars: Vec::new(),
        stop: vec!["\n\n".into()],
        answer: AnswerPattern { marker: "A:".into(), shape: domain::task::AnswerShape::Text },
        labels: domain::task::LabelSet::Open,
        metric: domain::label::Comparison::Text,
        tokens_max: 256,
    })
}

/// The name under which a checkpoint folder is registered: its own.
fn base_name(folder: &Path) -> String {
    name_of(&folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()), "base")
}

/// The name that a path stands for, with what no name may hold replaced; `other` where nothing is left.
pub(crate) fn name_of(own: &str, other: &str) -> String {
    let clean: String = own
        .chars()
        .map(
            |character| {
                if character.is_ascii_alphanumeric() || "._-".contains(character) { character } else { '-' }
            },
        )
        .take(48)
        .collect();
    let clean = clean.trim_start_matches(['.', '_', '-']);
    if clean.is_empty() { other.to_owned() } else { clean.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_data::Files;

    fn check(text: &str, expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spec.toml");
        std::fs::write(&path, text).unwrap();
        let found = match read(&path) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        let lines: Vec<&str> = found.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{found}");
        for (line, wanted) in lines.iter().zip(expected) {
            let shown = line.rsplit_once("spec.toml:").map_or(*line, |(_, rest)| rest);
            assert!(shown.starts_with(wanted), "wanted {wanted:?} in {shown:?}");
        }
    }

    const SOUND: &str = "name = \"job\"\ntask = \"equation\"\n[data]\ntrain = \"train.jsonl\"\n";

    #[test]
    fn every_example_can_be_read() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let mut count = 0;
        for folder in std::fs::read_dir(examples).unwrap() {
            for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let is_toml = path.extension().is_some_and(|extension| extension == "toml");
                if is_toml && std::fs::read_to_string(&path).unwrap().contains("[data]") {
                    read(&path).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
                    count += 1;
                }
            }
        }
        assert!(count >= 10, "{count}");
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spec.toml");
        std::fs::write(&path, format!("{SOUND}test = \"t.csv\"\n[student]\ninit = \"../my base\"\n"))
            .unwrap();
        let file = read(&path).unwrap();
        assert_eq!(file.init, Some(folder.path().join("../my base")));
        assert_eq!(file.spec.start, domain::spec::Start::Base { name: "my-base".into() });
        let Data::Files(Files { files, .. }) = file.data else { panic!("{:?}", file.data) };
        assert_eq!(files.first(), Some(&(Some(domain::Split::Train), folder.path().join("train.jsonl"))));
        assert_eq!(files.get(1).map(|(split, _)| *split), Some(Some(domain::Split::Test)));
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        check(SOUND, &[]);
        check("name = ", &["1: file: is not TOML"]);
        check("", &["1: name: is missing", "1: task: is missing", "1: data: is missing"]);
        check(
            &format!("{SOUND}[training]\nleraning_rate = 1\n"),
            &["6: training.leraning_rate: is not a known key: did you mean `learning_rate`?"],
        );
        check(
            &format!("{SOUND}[training]\nsteps = \"many\"\nalpha = 2.0\n"),
            &[
                "6: training.steps: invalid type: string",
                "7: training.alpha: is 2: it must lie between 0 and 1",
            ],
        );
        check(
            &format!("{SOUND}[trainnig]\nsteps = 1\n"),
            &["5: trainnig: is not a known key: did you mean `training`?"],
        );
        check(&SOUND.replace("equation", "equatoin"), &["2: task: `equatoin` is neither"]);
        check(&SOUND.replace("equation", "none.toml"), &["2: task: does not exist"]);
        check(
            &SOUND.replace("train =", "trian ="),
            &["3: data: has no train rows", "4: data.trian: is not a known key"],
        );
        check(&format!("{SOUND}[student]\nbase = \"a\"\ninit = \"b\"\n"), &["7: student.init: contradicts"]);
        check(
            &format!("{SOUND}[student]\ninit = \"b\"\nsize = \"tiny\"\n"),
            &["7: student.size: contradicts `student.init`"],
        );
        check(
            &format!("{SOUND}[student]\nsize = \"giant\"\n"),
            &["6: student.size: unknown variant `giant`"],
        );
        check(&format!("{SOUND}[teacher.budget]\nprompts = -1\n"), &["5: teacher.budget: invalid value"]);
        check(
            &format!("{SOUND}[teacher.budget]\npromts = 1\n"),
            &["6: teacher.budget.promts: is not a known key: did you mean `prompts`?"],
        );
    }

    #[test]
    fn an_unknown_key_of_a_task_is_refused_with_its_line() {
        let sound = include_str!("../../../examples/tasks/sentiment.toml");
        let check = |from: &str, to: &str, expected: Option<&str>| {
            assert!(sound.contains(from), "{from}");
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("task.toml");
            std::fs::write(&path, sound.replacen(from, to, 1)).unwrap();
            match (read_task(&path), expected) {
                (Ok(_), None) => {}
                (Err(message), Some(expected)) => assert!(message.contains(expected), "{message}"),
                (read, expected) => panic!("{read:?}, wanted {expected:?}"),
            }
        };
        let line = |start: &str| sound.lines().position(|line| line.starts_with(start)).unwrap() + 1;
        check("name", "name", None);
        check(
            "stop =",
            "stops =",
            Some(&format!(":{}: stops: is not a known key: did you mean `stop`?", line("stop"))),
        );
        check("marker =", "markr =", Some("answer.markr: is not a known key: did you mean `marker`?"));
        check("rationale =", "rational =", Some("exemplars[0].rational: is not a known key"));
        check(
            "rationale = \"",
            "rationale = \"EDIT ME: ",
            Some(&format!(":{}: exemplars[0].rationale: is a placeholder: write", line("rationale"))),
        );
    }

    #[test]
    fn a_file_that_is_not_text_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spec.toml");
        std::fs::write(&path, [b'n', 0xff, 0xfe]).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("is not UTF-8 (byte 1)"));
        assert!(read(&folder.path().join("none.toml")).unwrap_err().to_string().contains("does not exist"));
    }
}
