//! Answers that were given: the same question to the same student is answered again without computing it.
//!
//! Greedy texts and labels only: what is drawn by chance is drawn again. The least recently used ones make room.

use crate::served::Served;
use domain::telemetry;
use hashlink::LruCache;
use metrics::{Counter, counter};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use student::{Ask, Candidates, Choice, Prompt, Strategy};

/// What an entry takes beside its question and its answer, in bytes.
const ENTRY_BYTES: usize = 256;

/// A question to one student, as the cache knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    served: u64,
    ids: Vec<i64>,
    asked: Asked,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Asked {
    /// A greedy text of so many tokens.
    Text(usize),
    Labels(Arc<Candidates>),
}

impl Question {
    fn of(served: &Served, prompt: &Prompt) -> Option<Self> {
        let asked = match &prompt.ask {
            Ask::Text { strategy: Strategy::Greedy, tokens_max } => Asked::Text(*tokens_max),
            Ask::Text { .. } => return None,
            Ask::Choice(candidates) => Asked::Labels(Arc::clone(candidates)),
        };
        Some(Self { served: served.number, ids: prompt.ids.clone(), asked })
    }

    fn bytes(&self) -> usize {
        let labels = match &self.asked {
            Asked::Text(_) => 0,
            Asked::Labels(candidates) => candidates.bytes(),
        };
        self.ids.len().saturating_mul(size_of::<i64>()).saturating_add(labels)
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    /// A text, and the natural logarithm of its probability.
    Text(String, f64),
    Choice(Choice),
}

impl Known {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text, _) => text.len(),
            Self::Choice(choice) => {
                choice.probabilities.iter().map(|entry| entry.label.len() + ENTRY_BYTES / 4).sum()
            }
        }
    }
}

/// The answers that are kept.
pub(crate) struct Cache {
    bytes_max: usize,
    kept: Mutex<Kept>,
    hits: Counter,
    misses: Counter,
}

struct Kept {
    answers: LruCache<Question, Known>,
    bytes: usize,
}

impl fmt::Debug for Cache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cache").field("bytes_max", &self.bytes_max).finish_non_exhaustive()
    }
}

impl Cache {
    /// An empty cache of at most so many bytes; 0 for one that keeps nothing.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let looked = |outcome: &'static str| {
            let counter = counter!(telemetry::INFERENCE_CACHE.name, "outcome" => outcome);
            counter.increment(0);
            counter
        };
        let kept = Mutex::new(Kept { answers: LruCache::new_unbounded(), bytes: 0 });
        Self { bytes_max, kept, hits: looked("hit"), misses: looked("miss") }
    }

    /// The question that a prompt is; `None` where its answer is not kept.
    pub(crate) fn question(&self, served: &Served, prompt: &Prompt) -> Option<Question> {
        (self.bytes_max > 0).then(|| Question::of(served, prompt)).flatten()
    }

    /// The answer to a question, where it is known.
    pub(crate) fn find(&self, question: &Question) -> Option<Known> {
        let known = self.kept().answers.get(question).cloned();
        if known.is_some() { &self.hits } else { &self.misses }.increment(1);
        known
    }

    /// Keeps an answer.
    pub(crate) fn keep(&self, question: Question, known: Known) {
        let bytes = weight(&question, &known);
        if bytes > self.bytes_max {
            return;
        }
        let mut kept = self.kept();
        if let Some(before) = kept.answers.remove(&question) {
            kept.bytes = kept.bytes.saturating_sub(weight(&question, &before));
        }
        kept.answers.insert(question, known);
        kept.bytes = kept.bytes.saturating_add(bytes);
        while kept.bytes > self.bytes_max {
            let Some((question, known)) = kept.answers.remove_lru() else { break };
            kept.bytes = kept.bytes.saturating_sub(weight(&question, &known));
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn weight(question: &Question, known: &Known) -> usize {
    ENTRY_BYTES.saturating_add(question.bytes()).saturating_add(known.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(served: u64, id: i64) -> Question {
        Question { served, ids: vec![id; 10], asked: Asked::Text(4) }
    }

    fn text(cache: &Cache, question: &Question) -> Option<String> {
        match cache.find(question)? {
            Known::Text(text, _) => Some(text),
            Known::Choice(choice) => Some(choice.label),
        }
    }

    /// Bytes and answers.
    fn size(cache: &Cache) -> (usize, usize) {
        let kept = cache.kept();
        (kept.bytes, kept.answers.len())
    }

    #[test]
    fn the_least_recently_used_answers_make_room_and_the_bytes_are_bounded() {
        let one = ENTRY_BYTES + 80 + 3;
        let cache = Cache::new(3 * one);
        for id in 0..3 {
            cache.keep(question(0, id), Known::Text(format!("a{id:02}"), 0.0));
        }
        assert_eq!(text(&cache, &question(0, 0)).as_deref(), Some("a00"));
        cache.keep(question(0, 3), Known::Text("a03".to_owned(), 0.0));
        assert_eq!(text(&cache, &question(0, 1)), None, "the least recently used");
        assert_eq!(text(&cache, &question(0, 0)).as_deref(), Some("a00"));
        assert_eq!(text(&cache, &question(1, 0)), None, "another student");
        cache.keep(question(0, 0), Known::Text("b00".to_owned(), 0.0));
        assert_eq!(size(&cache), (3 * one, 3));
        // One that is larger than all is not kept, and drives nobody out.
        cache.keep(question(0, 9), Known::Text("x".repeat(4 * one), 0.0));
        assert_eq!(size(&cache), (3 * one, 3));
        for id in 0..1_000 {
            cache.keep(question(2, id), Known::Text("y".repeat(id as usize % 300), 0.0));
            assert!(size(&cache).0 <= 3 * one);
        }
    }
}
