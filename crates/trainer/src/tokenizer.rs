//! The student's tokenizer: one that came with a checkpoint, or one trained on the job's own text.

use crate::TrainError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokenizers::models::unigram::{Unigram, UnigramTrainer};
use tokenizers::normalizers::NFKC;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

/// Padding, end and unknown: T5's ids 0, 1 and 2.
const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];
/// The id that ends a sequence.
pub const END: i64 = 1;

/// A tokenizer that ends what it encodes.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Opens `tokenizer.json`.
    ///
    /// # Errors
    /// It is absent, cannot be read, has ids beyond `vocabulary`, or no end token where T5 has it.
    pub fn load(path: &Path, vocabulary: i64) -> Result<Self, TrainError> {
        let wrong = |message: String| TrainError::Tokenizer(format!("{}: {message}", path.display()));
        if !path.is_file() {
            return Err(wrong(
                "is not there: write it with `transformers` (AutoTokenizer.from_pretrained(..).save_pretrained(..)), \
                 from the SentencePiece model"
                    .to_owned(),
            ));
        }
        let mut inner = tokenizers::Tokenizer::from_file(path)
            .map_err(|error| wrong(format!("is no tokenizer: {error}")))?;
        // Published files may cut and pad by themselves; both are decided here.
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        inner.with_padding(None);
        let highest = inner.get_vocab(true).into_values().max().map_or(0, i64::from);
        if highest >= vocabulary {
            return Err(wrong(format!(
                "has the id {highest}, and the model's vocabulary ends at {}: it belongs to another model",
                vocabulary - 1
            )));
        }
        if inner.token_to_id("</s>").map(i64::from) != Some(END) {
            return Err(wrong(format!("does not have `</s>` at id {END}: it is no T5 tokenizer")));
        }
        Ok(Self { inner })
    }

    /// Trains a Unigram tokenizer (Kudo 2018) of at most `vocabulary` pieces on `texts`; digits stand one by one. A text
    /// that supports fewer pieces gives fewer. The same texts, in whatever order, give the same bytes in every process.
    ///
    /// # Errors
    /// There is no text.
    pub fn train(texts: impl IntoIterator<Item = String>, vocabulary: u32) -> Result<Self, TrainError> {
        let failed = |error: tokenizers::Error| TrainError::Tokenizer(format!("training failed: {error}"));
        let mut inner = scaffold().map_err(failed)?;
        let mut words: BTreeMap<String, u32> = BTreeMap::new();
        for text in texts {
            for word in pre_tokenize(&inner, &text).map_err(failed)? {
                *words.entry(word).or_default() += 1;
            }
        }
        if words.is_empty() {
            return Err(TrainError::Tokenizer("there is no text to train on".to_owned()));
        }
        // Every character is a piece; the library loses count where there is no place beside them.
        let characters: BTreeSet<char> = words.keys().flat_map(|word| word.chars()).collect();
        if characters.len() + SPECIAL.len() >= vocabulary as usize {
            return Err(TrainError::Tokenizer(format!(
                "the text has {} characters, and `student.vocabulary` is {vocabulary}: raise it",
                characters.len()
            )));
        }
        let trainer = UnigramTrainer::builder()
            .vocab_size(vocabulary)
            .special_tokens(SPECIAL.iter().map(|token| AddedToken::from(*token, true)).collect())
            .unk_token(Some("<unk>".to_owned()))
            .show_progress(false)
            .build()
            .map_err(|error| TrainError::Tokenizer(error.to_string()))?;
        let mut model = Unigram::default();
        // The library sums over as many chunks as there are threads: one, so that no number of cores shows in the sums.
        // It counts words in a map whose order changes from process to process: here they are sorted.
        rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .map_err(|error| TrainError::Tokenizer(format!("a thread cannot be started: {error}")))?
            .install(|| trainer.do_train(words.into_iter().collect(), &mut model))
            .map_err(failed)?;
        inner.with_model(sorted(&model).map_err(failed)?);
        inner.add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true))).map_err(failed)?;
        Ok(Self { inner })
    }

    /// How many ids there are.
    pub fn vocabulary(&self) -> i64 {
        self.inner.get_vocab_size(true) as i64
    }

    /// `text` as ids, at most `tokens_max` with the end token that always closes it.
    ///
    /// # Errors
    /// The library's.
    pub fn encode(&self, text: &str, tokens_max: usize) -> Result<Vec<i64>, TrainError> {
        let encoding =
            self.inner.encode(text, true).map_err(|error| TrainError::Tokenizer(error.to_string()))?;
        let mut ids: Vec<i64> = encoding.get_ids().iter().map(|id| i64::from(*id)).collect();
        if ids.last() == Some(&END) {
            ids.pop();
        }
        ids.truncate(tokens_max.saturating_sub(1));
        ids.push(END);
        Ok(ids)
    }

    /// Ids as text, special tokens left out.
    ///
    /// # Errors
    /// The library's.
    pub fn decode(&self, ids: &[i64]) -> Result<String, TrainError> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        self.inner.decode(&ids, true).map_err(|error| TrainError::Tokenizer(error.to_string()))
    }

    /// Writes `tokenizer.json`, and the small file that `transformers` looks for beside it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join("tokenizer.json");
        self.inner
            .save(&path, true)
            .map_err(|error| TrainError::Tokenizer(format!("{}: {error}", path.display())))?;
        let settings = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>",
        });
        let path = folder.join("tokenizer_config.json");
        std::fs::write(&path, format!("{settings:#}\n"))
            .map_err(|source| checkpoints::CheckpointError::io(&path, source).into())
    }
}

fn scaffold() -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut inner = tokenizers::Tokenizer::new(Unigram::default());
    let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
    let ended = TemplateProcessing::builder()
        .try_single("$A </s>")
        .map_err(tokenizers::Error::from)?
        .special_tokens(vec![("</s>", 1)])
        .build()
        .map_err(|error| tokenizers::Error::from(error.to_string()))?;
    inner.with_normalizer(Some(NFKC))?;
    inner.with_pre_tokenizer(Some(Sequence::new(vec![metaspace.clone().into(), Digits::new(true).into()])));
    inner.with_decoder(Some(metaspace));
    inner.with_post_processor(Some(ended));
    Ok(inner)
}

fn pre_tokenize(inner: &tokenizers::Tokenizer, text: &str) -> tokenizers::Result<Vec<String>> {
    let mut normalized = NormalizedString::from(text);
    if let Some(normalizer) = inner.get_normalizer() {
        normalizer.normalize(&mut normalized)?;
    }
    let mut parts = PreTokenizedString::from(normalized);
    if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
        pre_tokenizer.pre_tokenize(&mut parts)?;
    }
    let words = parts.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(words.into_iter().map(|(word, _, _)| word.to_owned()).collect())
}

/// Characters that training dropped come back with the lowest score and a little more each, in an order that changes
/// from process to process: among those, the scores go by the characters' own order.
fn settle(pieces: &mut [(String, f64)]) {
    // The library's step, summed as it does.
    const STEP: f64 = 0.0001;
    let lowest = pieces.iter().map(|(_, score)| *score).fold(f64::INFINITY, f64::min);
    let mut dropped: Vec<&mut (String, f64)> = Vec::new();
    let mut characters: Vec<&mut (String, f64)> =
        pieces.iter_mut().filter(|(piece, _)| piece.chars().count() == 1).collect();
    let mut penalty = 0.0;
    loop {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            characters.into_iter().partition(|(_, score)| *score == lowest + penalty);
        if here.is_empty() {
            break;
        }
        dropped.extend(here);
        characters = elsewhere;
        penalty += STEP;
    }
    // Filled from the lowest score upwards.
    let scores: Vec<f64> = dropped.iter().map(|(_, score)| *score).collect();
    dropped.sort_by(|left, right| left.0.cmp(&right.0));
    for (piece, score) in dropped.into_iter().zip(scores) {
        piece.1 = score;
    }
}

/// The model with its pieces in an order of their own: likeliest first, then by text.
fn sorted(model: &Unigram) -> tokenizers::Result<Unigram> {
    let special = |piece: &str| SPECIAL.iter().position(|known| *known == piece);
    let mut pieces: Vec<(String, f64)> =
        model.iter().filter(|(piece, _)| special(piece).is_none()).cloned().collect();
    settle(&mut pieces);
    pieces.sort_by(|left, right| right.1.total_cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    let mut vocabulary: Vec<(String, f64)> = SPECIAL.iter().map(|piece| ((*piece).to_owned(), 0.0)).collect();
    vocabulary.extend(pieces);
    Unigram::from(vocabulary, Some(2), false)
}
