//! The labels of a closed set, as a student writes them.

use crate::{StudentError, Tokenizer};
use decoder::LabelTree;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};

/// A label of a closed set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Its text.
    pub label: String,
    /// The ids that the student would write, without the end token.
    pub ids: Vec<i64>,
}

/// The labels of a closed set: what they share is found once, and not at every answer.
#[derive(Debug)]
pub struct Candidates {
    entries: Vec<Candidate>,
    /// `None` where it has more prefixes than the packed form computes.
    tree: Option<LabelTree>,
}

// The tree follows from the labels.
impl PartialEq for Candidates {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for Candidates {}

impl Hash for Candidates {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.entries.hash(state);
    }
}

impl Candidates {
    /// The labels of a set, in its order. Different labels must be different to the student.
    ///
    /// # Errors
    /// A label is no token, or two of them are the same tokens: they are named.
    pub fn new(tokenizer: &Tokenizer, labels: &[String]) -> Result<Self, StudentError> {
        let mut seen: HashMap<Vec<i64>, &str> = HashMap::new();
        let mut entries = Vec::with_capacity(labels.len());
        for label in labels {
            let ids = tokenizer.label(label)?;
            if ids.is_empty() {
                return Err(StudentError::Labels(format!(
                    "the tokenizer makes no token of `{label}`: rename it"
                )));
            }
            if let Some(twin) = seen.insert(ids.clone(), label).filter(|twin| twin != label) {
                return Err(StudentError::Labels(same(twin, label, tokenizer.has_unknown(&ids))));
            }
            entries.push(Candidate { label: label.clone(), ids });
        }
        let tree = tree(&entries);
        Ok(Self { entries, tree })
    }

    /// The labels, in the order of the set.
    pub fn entries(&self) -> &[Candidate] {
        &self.entries
    }

    pub(crate) fn tree(&self) -> Option<&LabelTree> {
        self.tree.as_ref()
    }

    /// Bytes that they take, about.
    pub fn bytes(&self) -> usize {
        let bytes =
            |candidate: &Candidate| candidate.label.len() + candidate.ids.len() * 2 * size_of::<i64>();
        self.entries.iter().map(|candidate| size_of::<Candidate>() + bytes(candidate)).sum()
    }

    /// Tokens that are written to choose one: those of the longest, and the end token.
    pub fn tokens_max(&self) -> usize {
        self.entries.iter().map(|candidate| candidate.ids.len() + 1).max().unwrap_or(1)
    }
}

fn same(first: &str, second: &str, unknown: bool) -> String {
    let why = match unknown {
        true => "it does not know their characters (<unk>): rename them, or take a base that knows them",
        false => "it makes the same tokens of both: rename one",
    };
    format!("the tokenizer cannot tell `{first}` and `{second}` apart: {why}")
}

fn tree(entries: &[Candidate]) -> Option<LabelTree> {
    let token = |id: &i64| u32::try_from(*id).ok();
    let ids = entries.iter().map(|candidate| candidate.ids.iter().map(token).collect());
    let ids: Vec<Vec<u32>> = ids.collect::<Option<_>>()?;
    LabelTree::new(&ids.iter().map(Vec::as_slice).collect::<Vec<_>>()).ok()
}
