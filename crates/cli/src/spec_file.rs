//! A specification as a user writes it: a TOML file. Every mistake is named with file, line and field, all at once.

use crate::known_keys::{Keys, Reads, kind, unknown_keys};
use crate::mistakes::{Mistake, Mistakes};
use crate::spec_data::{self, Data};
use crate::task_file::{self, NamedTask, TaskFile};
use app::base::Refused;
use app::toml_lines::TomlLines;
use domain::Violation;
use domain::spec::{
    Draft, JudgingDraft, SECTIONS, Section, Spec, StudentDraft, StudyDraft, StudySpec, TeacherDraft,
    TrainingDraft,
};
use domain::task::Task;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

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
    fields: Fields,
}

impl SpecFile {
    /// Mistakes that show only elsewhere (with the rows, at the server, in the folder to start from), each with its line
    /// here.
    pub(crate) fn mistakes(&self, violations: Vec<Violation>) -> Mistakes {
        let located = violations.into_iter().map(|violation| {
            let (anchor, field) = match violation.field.as_str() {
                "dataset_id" => ("data", "data"),
                "student.base" if self.init.is_some() => ("student.init", "student.init"),
                rows if rows.starts_with("rows") => ("data", rows),
                _ => return self.fields.locate(violation),
            };
            let place = self.fields.locate(Violation::new(anchor, ""));
            Mistake { violation: Violation::new(field, violation.message), ..place }
        });
        Mistakes(located.collect())
    }

    /// Why the folder to start from was not taken: the user's mistake with its line, or another error.
    pub(crate) fn refused_init(&self, error: anyhow::Error) -> anyhow::Error {
        match error.downcast::<Refused>() {
            Ok(refused) => self.mistakes(vec![Violation::new("student.init", refused.to_string())]).into(),
            Err(error) => error,
        }
    }
}

/// Reads and checks a specification whose rows are used: their files are there.
///
/// # Errors
/// All mistakes at once, each with file, line and field.
pub(crate) fn read(path: &Path) -> Result<SpecFile, Mistakes> {
    read_with(path, &|file| file.is_file())
}

/// Reads and checks a specification, whether or not its rows are there.
///
/// # Errors
/// All mistakes at once, each with file, line and field.
pub(crate) fn read_without_rows(path: &Path) -> Result<SpecFile, Mistakes> {
    read_with(path, &|_| true)
}

fn read_with(path: &Path, is_there: &dyn Fn(&Path) -> bool) -> Result<SpecFile, Mistakes> {
    let whole = |line: usize, words: String| {
        let violation = Violation::new("file", words);
        Mistakes(vec![Mistake { file: path.to_owned(), line, violation }])
    };
    let text = task_file::read_text(path).map_err(|words| whole(1, words))?;
    let table = task_file::parse(&text).map_err(|(line, words)| whole(line, words))?;
    let fields = Fields { path: path.to_owned(), lines: TomlLines::of(&text), task: None };
    Source { table, fields, found: Vec::new() }.spec_file(is_there)
}

/// Where fields stand: in the file of the specification, or in that of its task.
#[derive(Debug)]
struct Fields {
    path: PathBuf,
    lines: TomlLines,
    task: Option<TaskFile>,
}

impl Fields {
    fn locate(&self, violation: Violation) -> Mistake {
        let in_task = self.task.as_ref().and_then(|task| task.locate(&violation));
        in_task.unwrap_or_else(|| {
            let line = self.lines.line(&violation.field);
            Mistake { file: self.path.clone(), line, violation }
        })
    }

    fn mistakes(&self, violations: Vec<Violation>) -> Mistakes {
        let mut located: Vec<Mistake> = violations.into_iter().map(|one| self.locate(one)).collect();
        located.sort_by_key(|mistake| (mistake.file != self.path, mistake.line));
        Mistakes(located)
    }
}

/// A parsed file: its values, where each of them stands, and what was found to be wrong.
struct Source {
    table: Table,
    fields: Fields,
    found: Vec<Violation>,
}

/// The keys of a specification file outside [`SECTIONS`].
const KEYS: [&str; 3] = ["name", "task", "data"];

impl Source {
    fn spec_file(mut self, is_there: &dyn Fn(&Path) -> bool) -> Result<SpecFile, Mistakes> {
        self.refuse_unknown_sections();
        let name = self.text_of("name").unwrap_or_default();
        let task = self.task();
        let data = self.data(is_there);
        let init = self.take_init();
        let draft = Draft {
            name,
            task,
            teacher: self.section::<TeacherDraft>(TeacherDraft::SECTION),
            judging: self.section::<JudgingDraft>(JudgingDraft::SECTION),
            student: self.section::<StudentDraft>(StudentDraft::SECTION),
            training: self.section::<TrainingDraft>(TrainingDraft::SECTION),
        };
        let study = self.section::<StudyDraft>(StudyDraft::SECTION).resolve();
        let draft = self.with_base(draft, init.as_deref());
        let over_unlabelled_rows = draft.leaves_label_open().then(|| draft.clone().over_unlabelled_rows());
        let over_unlabelled_rows = over_unlabelled_rows.and_then(|draft| draft.resolve().ok());
        let (spec, mut found) = draft.resolve_after(self.found);
        if init.is_some() {
            // The user wrote `init`, of which the base was made.
            for violation in found.iter_mut().filter(|violation| violation.field != "student.init") {
                violation.message = violation.message.replace("`student.base`", "`student.init`");
            }
        }
        match data {
            Some(data) if found.is_empty() => {
                Ok(SpecFile { spec, over_unlabelled_rows, data, study, init, fields: self.fields })
            }
            _ => Err(self.fields.mistakes(found)),
        }
    }

    fn complain(&mut self, violation: Violation) {
        self.found.push(violation);
    }

    fn refuse_unknown_sections(&mut self) {
        let sections = SECTIONS.iter().map(|section| section.name).filter(|name| !name.contains('.'));
        let known: Vec<&str> = KEYS.into_iter().chain(sections).collect();
        self.found.extend(unknown_keys(&self.table, "", &known));
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

    fn task(&mut self) -> Task {
        let Some(name) = self.text_of("task") else { return Task::stand_in() };
        match NamedTask::find(&name, &self.relative(&name)) {
            Ok(NamedTask::BuiltIn(task)) => task,
            Ok(NamedTask::File(file)) => {
                self.found.extend(file.found.iter().cloned());
                let task = file.task.clone();
                self.fields.task = Some(file);
                task
            }
            Err(words) => {
                self.complain(Violation::new("task", words));
                Task::stand_in()
            }
        }
    }

    fn data(&mut self, is_there: &dyn Fn(&Path) -> bool) -> Option<Data> {
        let (data, found) = spec_data::read(self.table.get("data"), &self.relative(""), is_there);
        self.found.extend(found);
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
        self.fields.path.parent().unwrap_or(Path::new("")).join(file)
    }

    /// One section, key by key, so that every wrong key and every wrong type is named.
    fn section<T: DeserializeOwned + Default>(&mut self, section: Section) -> T {
        let table = match self.table.get(section.name) {
            None => return T::default(),
            Some(Value::Table(table)) => table.clone(),
            Some(other) => {
                let message = format!("must be a table ([{}]), and is {}", section.name, kind(other));
                self.complain(Violation::new(section.name, message));
                return T::default();
            }
        };
        let sound = self.sound(section, table, &|table| T::deserialize(Value::Table(table)).map(drop));
        T::deserialize(Value::Table(sound)).unwrap_or_default()
    }

    /// What `reads` takes of a section, in the sections within it too, such as `teacher.budget`.
    fn sound(&mut self, section: Section, mut table: Table, reads: &Reads<'_>) -> Table {
        for (key, value) in &mut table {
            let inner = SECTIONS.iter().find(|inner| inner.name == format!("{}.{key}", section.name));
            if let (Some(inner), Value::Table(within)) = (inner, &mut *value) {
                let alone = |within| reads(Table::from_iter([(key.clone(), Value::Table(within))]));
                let sound = self.sound(*inner, std::mem::take(within), &alone);
                *within = sound;
            }
        }
        let known: Vec<_> = section.fields.iter().map(|field| (field.key, field.range)).collect();
        let keys = Keys { prefix: &format!("{}.", section.name), known: &known, base: &Table::new() };
        keys.sound(table, reads, &mut self.found)
    }
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
    use super::{read_without_rows as read, *};
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
                "6: training.steps: is string \"many\": write an integer between 1 and 10000000",
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
            &["6: student.size: is `giant`: write one of `tiny`, `mini`"],
        );
        check(
            &format!("{SOUND}[teacher.budget]\nprompts = -1\n"),
            &["6: teacher.budget.prompts: is integer `-1`: write an integer from 0"],
        );
        check(
            &format!("{SOUND}[teacher.budget]\npromts = 1\n"),
            &["6: teacher.budget.promts: is not a known key: did you mean `prompts`?"],
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
