//! What documents name exists: paths, links, commands with their flags, tables, settings.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use tests::binary;

/// Folders of the repository: a word that begins with one of them is a path.
const FOLDERS: &[&str] = &[
    ".ci",
    "benches",
    "crates",
    "deploy",
    "docs",
    "examples",
    "migrations",
    "proto",
    "scripts",
    "statements",
    "tests",
];
/// Paths that a command makes.
const MADE: &[&str] = &["deploy/secrets"];
/// What ends a command within a line of shell.
const ENDS: &[char] = &['|', ';', '&', '>', '<', '#', '$', ')', '('];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents that people read, by their paths.
fn documents() -> Vec<String> {
    let mut found: Vec<String> =
        ["README.md", "deploy/README.md", "deploy/RUNBOOK.md"].map(str::to_owned).into();
    let mut folders = vec![root().join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// One document, taken apart.
struct Document {
    folder: PathBuf,
    /// Its own headings.
    anchors: BTreeSet<String>,
    /// Code spans, and commands of code blocks with continued lines joined; each with its line.
    code: Vec<(usize, String)>,
    /// Targets of links, with their lines.
    links: Vec<(usize, String)>,
}

impl Document {
    fn parse(path: &str, text: &str) -> Self {
        let (mut code, mut links) = (Vec::new(), Vec::new());
        let (mut in_block, mut command) = (false, String::new());
        for (line, number) in text.lines().zip(1..) {
            if line.trim_start().starts_with("```") {
                in_block = !in_block;
            } else if in_block {
                let continued = line.trim_end().strip_suffix('\\');
                command.push_str(continued.unwrap_or(line));
                if continued.is_none() {
                    code.push((number, std::mem::take(&mut command)));
                }
            } else {
                code.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span.to_owned())));
                let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
                links.extend(targets.map(|target| (number, target.to_owned())));
            }
        }
        let folder = root().join(path).parent().unwrap().to_owned();
        Self { folder, anchors: anchors(text), code, links }
    }

    /// Every fault of it, with its line.
    fn faults(&self, known: &Known) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (line, target) in &self.links {
            found.extend(self.link_fault(target).map(|fault| (*line, fault)));
        }
        for (line, code) in &self.code {
            let faults = [path_faults(code), known.command_faults(code), known.setting_faults(code)];
            found.extend(faults.into_iter().flatten().map(|fault| (*line, fault)));
        }
        found
    }

    fn link_fault(&self, target: &str) -> Option<String> {
        if target.contains("://") {
            return None;
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = self.folder.join(path);
        if !file.exists() {
            return Some(format!("the link `{target}` leads to no file"));
        }
        let is_there = match (path, anchor) {
            (_, "") => true,
            ("", anchor) => self.anchors.contains(anchor),
            (_, anchor) => anchors(&fs::read_to_string(file).unwrap()).contains(anchor),
        };
        (!is_there).then(|| format!("the link `{target}` leads to no heading"))
    }
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    headings
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| heading.chars().filter(kept).collect::<String>().replace(' ', "-"))
        .collect()
}

/// Words that name a path of the repository that is not there.
fn path_faults(code: &str) -> Vec<String> {
    let words = code.split(|letter: char| letter.is_whitespace() || "\"'=,;()@".contains(letter));
    let mut faults = Vec::new();
    for word in words {
        let path = word.trim_start_matches("./").split(':').next().unwrap_or_default();
        let is_pattern = path.contains(['<', '*', '{', '$'])
            || path.split(['/', '.']).any(|part| ["NAME", "VERSION"].contains(&part));
        let is_made = MADE.iter().any(|made| path.starts_with(made));
        let in_folder = path.split_once('/').is_some_and(|(folder, _)| FOLDERS.contains(&folder));
        if in_folder && !is_pattern && !is_made && !root().join(path).exists() {
            faults.push(format!("the path `{path}` does not exist"));
        }
    }
    faults
}

static KNOWN: LazyLock<Known> = LazyLock::new(Known::read);

/// What the binary, the scripts and the configuration know.
struct Known {
    /// The verbs and flags that may follow each verb, such as `import paper`; those of the binary under an empty name.
    words: BTreeMap<String, BTreeSet<String>>,
    xtask: String,
    makefile: String,
    /// `section.key` of the configuration.
    settings: BTreeSet<String>,
}

impl Known {
    fn read() -> Self {
        let (xtask, makefile) = (read("crates/xtask/src/main.rs"), read("Makefile"));
        Self { words: words(), xtask, makefile, settings: settings(&read("crates/app/src/default.toml")) }
    }

    fn command_faults(&self, code: &str) -> Vec<String> {
        let code = code.split(" #").next().unwrap_or_default().trim_start_matches(['$', ' ']);
        let mut faults = Vec::new();
        for command in code.split(ENDS) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let fault = match words.as_slice() {
                ["cargo", "xtask", name, ..] if !self.xtask.contains(&format!("Some(\"{name}\")")) => {
                    Some(format!("there is no `cargo xtask {name}`"))
                }
                ["make", name, ..]
                    if !self.makefile.lines().any(|line| line.starts_with(&format!("{name}:"))) =>
                {
                    Some(format!("there is no `make {name}`"))
                }
                [script, flags @ ..] if script.starts_with("scripts/") => script_fault(script, flags),
                [program, rest @ ..] if *program == "distillery" || program.ends_with("/distillery") => {
                    self.verb_fault(rest)
                }
                _ => None,
            };
            faults.extend(fault);
        }
        faults
    }

    /// What is wrong with the arguments of a `distillery` command. Words in capitals stand for others.
    fn verb_fault(&self, words: &[&str]) -> Option<String> {
        let stands_for_others = |word: &str| word.chars().all(|letter| !letter.is_lowercase());
        let mut verb = String::new();
        let mut may_follow = self.words.get("")?;
        for word in words.iter().take_while(|word| !word.starts_with('-') && !stands_for_others(word)) {
            let next = format!("{verb} {}", word.trim_end_matches(',')).trim().to_owned();
            match self.words.get(&next) {
                Some(known) => (verb, may_follow) = (next, known),
                None if verb.is_empty() => return Some(format!("there is no verb `distillery {word}`")),
                None => break,
            }
        }
        let flags = words.iter().filter(|word| word.starts_with("--"));
        let mut names = flags.filter_map(|word| word.split(['=', ',', ']', '.']).next());
        let unknown = names.find(|flag| !may_follow.contains(*flag))?;
        Some(format!("`distillery {verb}` has no flag `{unknown}`"))
    }

    /// `section.key`, where the section is one of the configuration and the key is not.
    fn setting_faults(&self, code: &str) -> Vec<String> {
        let is_word = |text: &str| {
            !text.is_empty() && text.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
        };
        let Some((section, key)) =
            code.split_once('.').filter(|(section, key)| is_word(section) && is_word(key))
        else {
            return Vec::new();
        };
        let is_section = self.settings.iter().any(|known| known.starts_with(&format!("{section}.")));
        let is_file = matches!(key, "rs" | "toml" | "md" | "json" | "sh" | "py" | "proto" | "yaml" | "yml");
        if !is_section || is_file || self.settings.contains(code) {
            return Vec::new();
        }
        vec![format!("there is no setting `{code}`")]
    }
}

/// What may follow each verb, from the binary's own completion script.
fn words() -> BTreeMap<String, BTreeSet<String>> {
    let output = binary::output(binary::command(&root(), &["completions", "bash"]).unwrap()).unwrap();
    let (script, mut verb, mut found) = (String::from_utf8(output.stdout).unwrap(), None, BTreeMap::new());
    // A function is named without hyphens: for which verb it is stands where it is chosen.
    let (mut of, mut chosen) = (BTreeMap::<String, String>::new(), None);
    for line in script.lines().map(str::trim) {
        let case = line.strip_suffix(')').filter(|case| case.starts_with("distillery"));
        if let Some((caller, word)) = case.and_then(|case| case.split_once(',')) {
            let before = of.get(caller).map_or("", String::as_str);
            chosen = Some(format!("{before} {word}").trim().to_owned());
        } else if let (Some(name), Some(verb)) = (line.strip_prefix("cmd=\""), chosen.take()) {
            of.insert(name.trim_end_matches('"').to_owned(), verb);
        } else if let Some(name) = case {
            verb = Some(of.get(name).cloned().unwrap_or_default());
        } else if let (Some(words), Some(verb)) = (line.strip_prefix("opts=\""), verb.take()) {
            let words = words.trim_end_matches('"').split_whitespace();
            found.insert(verb, words.map(str::to_owned).collect());
        }
    }
    found
}

/// `section.key` of every key of a TOML text.
fn settings(text: &str) -> BTreeSet<String> {
    let (mut section, mut found) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) {
            found.insert(format!("{section}.{key}"));
        }
    }
    found
}

fn script_fault(script: &str, words: &[&str]) -> Option<String> {
    let text = fs::read_to_string(root().join(script)).ok()?;
    let flag = words.iter().find(|word| word.starts_with("--") && !text.contains(**word))?;
    Some(format!("`{script}` knows no flag `{flag}`"))
}

#[test]
fn what_documents_name_exists() {
    let mut faults = Vec::new();
    for path in documents() {
        for (line, fault) in Document::parse(&path, &read(&path)).faults(&KNOWN) {
            faults.push(format!("{path}:{line}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_does_not_exist_is_named() {
    let check = |text: &str, wanted: &[&str]| {
        let faults = Document::parse("docs/page.md", text).faults(&KNOWN);
        let found: Vec<&str> = faults.iter().map(|(_, fault)| fault.as_str()).collect();
        assert_eq!(found, wanted, "{text}");
    };
    check("See `crates/domain/src/spec.rs` and [the map](../README.md#the-code-map).", &[]);
    check("See `crates/domain/src/none.rs`.", &["the path `crates/domain/src/none.rs` does not exist"]);
    check("[a](none.md)", &["the link `none.md` leads to no file"]);
    check("[a](../README.md#none)", &["the link `../README.md#none` leads to no heading"]);
    check("`distillery run spec.toml --json`, `distillery import paper --dataset svamp --from DIR`", &[]);
    check("# Page\n[a](#page) [b](#none)", &["the link `#none` leads to no heading"]);
    check("`distillery distil spec.toml`", &["there is no verb `distillery distil`"]);
    check("```\ndistillery run spec.toml \\\n    --fast\n```", &["`distillery run` has no flag `--fast`"]);
    check("`cargo xtask sql` `cargo xtask none`", &["there is no `cargo xtask none`"]);
    check("`make test`, `make none`", &["there is no `make none`"]);
    check(
        "`scripts/libtorch.sh --cuda`, `scripts/libtorch.sh --tpu`",
        &["`scripts/libtorch.sh` knows no flag `--tpu`"],
    );
    check("`server.drain_seconds`, `server.drain_minutes`", &["there is no setting `server.drain_minutes`"]);
}

/// The first words, in code, of the rows of a table that follow `marker`.
fn first_cells(text: &str, marker: &str) -> BTreeSet<String> {
    let rows = text.split(marker).nth(1).unwrap().lines().skip_while(|line| !line.starts_with('|'));
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|line| line.split('`').nth(1));
    cells.map(str::to_owned).collect()
}

/// What follows `words` in the migrations of a database.
fn created(folder: &str, words: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix(words)?.split([' ', '(']).next());
        found.extend(names.map(str::to_owned));
    }
    found
}

#[test]
fn the_data_model_is_that_of_the_migrations() {
    let text = read("docs/ARCHITECTURE.md");
    let documented = first_cells(&text, "## The data model");
    assert_eq!(documented, created("migrations/postgres", "CREATE TABLE "));
    // SQLite changes a table by filling a new one, which then gets the name.
    let known = |name: &str| documented.contains(name.strip_suffix("_new").unwrap_or(name));
    let beyond: Vec<String> =
        created("migrations/sqlite", "CREATE TABLE ").into_iter().filter(|name| !known(name)).collect();
    assert_eq!(beyond, Vec::<String>::new(), "tables that only SQLite has");
    for view in created("migrations/postgres", "CREATE VIEW ") {
        assert!(text.contains(&format!("`{view}`")), "docs/ARCHITECTURE.md does not name the view {view}");
    }
}
