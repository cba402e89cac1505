//! The engine: a model, its threads and their memory.

mod score;

use crate::attend::Sequence;
use crate::cache::Cache;
use crate::encode::{EncoderPass, Row};
use crate::encoded::Encoded;
use crate::head::{Choice, HeadPass, Need, SEGMENT, Summary, parts_length, summary};
use crate::lanes::Vectors;
use crate::memory::Buffer;
use crate::model::Model;
use crate::pass::Pass;
use crate::pool::Pool;
use crate::position::Bias;
use crate::slots::{Slot, Slots};
use crate::step::{DecoderPass, Span};
use crate::tile::Tile;
use crate::workspace::Workspace;
use crate::{Error, Result};
use std::fmt;
use std::sync::Arc;

/// Tokens of encoder rows that pass together; a longer row passes alone.
const ENCODER_TOKENS: usize = 512;
/// Most tokens of an encoder row.
const SOURCE_MAX: usize = 1 << 16;
/// Most tokens of one step.
const STEP_MAX: usize = 1 << 14;

/// What a step says of the tokens it is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The likeliest next token after each.
    Choices,
    /// All logits after each.
    Logits,
}

/// Tokens for a row: one, or several that are read at once (a prefix, a draft).
#[derive(Debug, Clone, Copy)]
pub struct Feed<'a> {
    /// The row.
    pub slot: Slot,
    /// The first one that a row is fed is the model's start token.
    pub tokens: &'a [u32],
    /// What is asked.
    pub want: Want,
}

/// What a step says of one feed.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// One a token.
    Choices(Vec<Choice>),
    /// `[tokens, vocab]` in float32. Where a row has overflowed, they are not finite.
    Logits(Vec<f32>),
}

/// Computes with one model on a team of threads. A row's results are the same bits alone, in any company, and on any number
/// of threads.
pub struct Engine {
    model: Arc<Model>,
    pool: Pool,
    vectors: Vectors,
    tile: Tile,
    space: Workspace,
    encoder_bias: Bias,
    decoder_bias: Bias,
    parts: Buffer<f32>,
    logits: Buffer<f32>,
    picks: Buffer<f32>,
    /// Caches for trees, kept from call to call.
    tree_caches: Vec<Cache>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = out.debug_struct("Engine");
        out.field("tile", &self.tile).field("threads", &self.pool.threads()).finish_non_exhaustive()
    }
}

/// The tokens of a decoder pass.
#[derive(Default)]
struct Fed<'a> {
    ids: Vec<u32>,
    positions: Vec<usize>,
    spans: Vec<Span<'a>>,
    needs: Vec<Need>,
    logits: usize,
    picks: usize,
}

impl Engine {
    /// An engine on `threads` threads, the caller's among them, with the fastest tile of this machine.
    ///
    /// # Errors
    /// The threads are not in 1..=256, or cannot be started.
    pub fn new(model: Arc<Model>, threads: usize) -> Result<Self> {
        Self::with_tile(model, threads, Tile::detect())
    }

    /// The same with a certain tile.
    ///
    /// # Errors
    /// As [`Engine::new`]; or this machine lacks the tile.
    pub fn with_tile(model: Arc<Model>, threads: usize, tile: Tile) -> Result<Self> {
        if !Tile::available().contains(&tile) {
            return Err(Error::Input(format!("this machine has no {tile:?} tile")));
        }
        let vectors = match tile {
            Tile::Scalar => Vectors::Plain,
            #[cfg(target_arch = "x86_64")]
            Tile::Avx2 => Vectors::Medium,
            #[cfg(target_arch = "x86_64")]
            Tile::Vnni | Tile::Amx => Vectors::detect(),
        };
        Ok(Self {
            model,
            pool: Pool::new(threads)?,
            vectors,
            tile,
            space: Workspace::default(),
            encoder_bias: Bias::default(),
            decoder_bias: Bias::default(),
            parts: Buffer::default(),
            logits: Buffer::default(),
            picks: Buffer::default(),
            tree_caches: Vec::new(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The tile that it computes with.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// What measuring needs.
    pub(crate) fn parts_to_read(&mut self) -> (&Model, Vectors, &mut Pool) {
        (&self.model, self.vectors, &mut self.pool)
    }

    /// Reads rows of token ids, each with its end token. A row that is empty, too long (beyond 65,536 tokens) or holds an id
    /// outside the vocabulary fails alone.
    ///
    /// # Errors
    /// There is no memory, or a worker failed.
    pub fn encode(&mut self, rows: &[&[u32]]) -> Result<Vec<Result<Encoded>>> {
        let checks: Vec<Result<()>> = rows.iter().map(|row| self.check_source(row)).collect();
        let good = rows.iter().zip(&checks).filter(|(_, check)| check.is_ok()).map(|(row, _)| *row);
        let mut encoded = Vec::with_capacity(rows.len());
        for group in grouped(good.collect(), ENCODER_TOKENS, |row| row.len()) {
            encoded.extend(self.encode_group(&group)?);
        }
        let mut encoded = encoded.into_iter();
        let lost = || Error::Input("a row was lost".to_owned());
        Ok(checks.into_iter().map(|check| check.and_then(|()| encoded.next().ok_or_else(lost))).collect())
    }

    fn check_source(&self, row: &[u32]) -> Result<()> {
        if !(1..=SOURCE_MAX).contains(&row.len()) {
            let message = format!("a row of {} tokens: from 1 to {SOURCE_MAX} can be read", row.len());
            return Err(Error::Input(message));
        }
        self.check_ids(row)
    }

    fn check_ids(&self, ids: &[u32]) -> Result<()> {
        let vocabulary = self.model.shape.vocab_size;
        match ids.iter().find(|id| **id as usize >= vocabulary) {
            Some(id) => Err(Error::Input(format!(
                "id {id} lies outside the vocabulary of {vocabulary}: does the tokenizer belong to this model?"
            ))),
            None => Ok(()),
        }
    }

    fn encode_group(&mut self, rows: &[&[u32]]) -> Result<Vec<Encoded>> {
        let ids = rows.concat();
        let longest = rows.iter().map(|row| row.len()).max().unwrap_or(1);
        let head = self.model.plan.widths.head;
        self.space.ensure(&self.model, ids.len(), self.pool.threads())?;
        for scratch in &mut self.space.scratch {
            scratch.scores.ensure(Sequence::scratch(longest, head))?;
            scratch.attended.ensure(longest * head)?;
        }
        self.encoder_bias.ensure_encoder(&self.model, longest);
        let mut start = 0;
        let mut places = Vec::with_capacity(rows.len());
        for row in rows {
            let tokens = start..start + row.len();
            start = tokens.end;
            places.push(Row { tokens, cross: Cache::new(&self.model, row.len())? });
        }
        let (model, space, bias) = (&*self.model, &self.space, &self.encoder_bias);
        let (vectors, tile) = (self.vectors, self.tile);
        self.pool.run(&|worker| {
            tile.begin();
            let pass = Pass { model, worker, space, vectors, tile, rows: ids.len() };
            EncoderPass { pass, ids: &ids, rows: &places, bias }.run();
            tile.end();
        })?;
        let encoded = places.into_iter().map(|row| Encoded {
            length: row.tokens.len(),
            cross: Arc::new(row.cross),
            model: self.model.id,
        });
        Ok(encoded.collect())
    }

    /// Feeds tokens to some rows. Each fed token is one position; what is asked of it is what follows it.
    ///
    /// # Errors
    /// A slot is named twice or has left, a feed is empty or does not fit its slot, an id lies outside the vocabulary, the
    /// step has more than 16,384 tokens: then no row has moved. There is no memory, or a worker failed.
    pub fn step(&mut self, slots: &mut Slots, feeds: &[Feed<'_>]) -> Result<Vec<Answer>> {
        self.check_feeds(slots, feeds)?;
        if feeds.is_empty() {
            return Ok(Vec::new());
        }
        let (vocabulary, mut fed) = (self.model.shape.vocab_size, Fed::default());
        for feed in feeds {
            let row = slots.row(feed.slot)?;
            let start = fed.ids.len();
            fed.ids.extend(feed.tokens);
            fed.positions.extend(row.length..row.length + feed.tokens.len());
            let tokens = start..fed.ids.len();
            fed.spans.push(Span {
                own: &row.own,
                cross: &row.encoded.cross,
                source: row.encoded.length,
                tokens,
            });
            for _ in feed.tokens {
                fed.needs.push(match feed.want {
                    Want::Choices => Need::Choice,
                    Want::Logits => Need::Logits(fed.logits),
                });
                fed.logits += if feed.want == Want::Logits { vocabulary } else { 0 };
            }
        }
        self.decode(&fed)?;
        let answers = self.answers(feeds, &fed.needs);
        for feed in feeds {
            slots.row_mut(feed.slot)?.length += feed.tokens.len();
        }
        Ok(answers)
    }

    fn check_feeds(&self, slots: &Slots, feeds: &[Feed<'_>]) -> Result<()> {
        slots.check(&self.model)?;
        let mut seen = std::collections::HashSet::with_capacity(feeds.len());
        let mut total = 0_usize;
        for feed in feeds {
            let row = slots.row(feed.slot)?;
            if !seen.insert(feed.slot) {
                return Err(Error::Input("a slot is fed twice in one step".to_owned()));
            }
            if feed.tokens.is_empty() || feed.tokens.len() > row.tokens_max - row.length {
                return Err(Error::Input(format!(
                    "{} tokens for a row that has {} of {}",
                    feed.tokens.len(),
                    row.length,
                    row.tokens_max
                )));
            }
            self.check_ids(feed.tokens)?;
            total = total.saturating_add(feed.tokens.len());
        }
        if total > STEP_MAX {
            return Err(Error::Input(format!("a step of {total} tokens: at most {STEP_MAX}")));
        }
        Ok(())
    }

    fn answers(&mut self, feeds: &[Feed<'_>], needs: &[Need]) -> Vec<Answer> {
        let (rows, vocabulary) = (needs.len(), self.model.shape.vocab_size);
        let mut row = 0;
        let mut answers = Vec::with_capacity(feeds.len());
        for feed in feeds {
            let own = row..row + feed.tokens.len();
            row = own.end;
            answers.push(match feed.want {
                Want::Choices => {
                    let parts = self.parts.all_mut();
                    Answer::Choices(
                        own.map(|row| choice(&summary(used(parts, vocabulary, rows), rows, row))).collect(),
                    )
                }
                Want::Logits => {
                    let start = match needs.get(own.start) {
                        Some(Need::Logits(start)) => *start,
                        _ => 0,
                    };
                    let logits = self.logits.all_mut().get(start..start + own.len() * vocabulary);
                    Answer::Logits(logits.unwrap_or_default().to_vec())
                }
            });
        }
        answers
    }

    /// One pass of the decoder.
    fn decode(&mut self, fed: &Fed<'_>) -> Result<()> {
        let (model, rows) = (&*self.model, fed.ids.len());
        let positions = fed.positions.iter().max().map_or(1, |position| position + 1);
        let longest = fed.spans.iter().map(|span| span.source).max().unwrap_or(0).max(positions);
        self.space.ensure(model, rows, self.pool.threads())?;
        for scratch in &mut self.space.scratch {
            scratch.scores.ensure(longest.next_multiple_of(16))?;
            scratch.segment.ensure(rows * SEGMENT)?;
        }
        self.decoder_bias.ensure_decoder(model, positions);
        self.parts.ensure(parts_length(model.shape.vocab_size, rows))?;
        self.logits.ensure(fed.logits)?;
        self.picks.ensure(fed.picks)?;
        let head =
            HeadPass { needs: &fed.needs, parts: &self.parts, logits: &self.logits, picks: &self.picks };
        let (space, bias) = (&self.space, &self.decoder_bias);
        let (vectors, tile) = (self.vectors, self.tile);
        self.pool.run(&|worker| {
            tile.begin();
            let pass = Pass { model, worker, space, vectors, tile, rows };
            let (ids, positions, spans) = (&fed.ids, &fed.positions, &fed.spans);
            DecoderPass { pass, ids, positions, spans, bias, head: &head }.run();
            tile.end();
        })
    }
}

/// The parts of a pass of `rows` rows.
fn used(parts: &[f32], vocabulary: usize, rows: usize) -> &[f32] {
    parts.get(..parts_length(vocabulary, rows)).unwrap_or_default()
}

fn choice(summary: &Summary) -> Choice {
    let finite = summary.finite();
    Choice { id: summary.id, log_probability: summary.log_probability(summary.largest), finite }
}

/// Neighbours together, as many as weigh at most `most`; a heavier one alone.
fn grouped<T>(items: Vec<T>, most: usize, weight: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    let mut total = usize::MAX;
    for item in items {
        total = total.saturating_add(weight(&item));
        match groups.last_mut() {
            Some(group) if total <= most => group.push(item),
            _ => {
                total = weight(&item);
                groups.push(vec![item]);
            }
        }
    }
    groups
}
