//! Training a tokenizer on a job's own text.

use super::Tokenizer;
use crate::StudentError;
use std::collections::{BTreeMap, BTreeSet};
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
const PAD: i64 = 0;
const END: i64 = 1;
const UNKNOWN: u32 = 2;

impl Tokenizer {
    /// Trains a Unigram tokenizer (Kudo 2018) of at most `vocabulary` pieces on `texts`; digits stand one by one. A text
    /// that supports fewer pieces gives fewer. The same texts, in whatever order, give the same bytes in every process.
    ///
    /// # Errors
    /// There is no text.
    pub fn train(texts: impl IntoIterator<Item = String>, vocabulary: u32) -> Result<Self, StudentError> {
        let failed = |error: tokenizers::Error| StudentError::Tokenizer(format!("training failed: {error}"));
        let mut inner = scaffold().map_err(failed)?;
        let mut words: BTreeMap<String, u32> = BTreeMap::new();
        for text in texts {
            for word in pre_tokenize(&inner, &text).map_err(failed)? {
                *words.entry(word).or_default() += 1;
            }
        }
        if words.is_empty() {
            return Err(StudentError::Tokenizer("there is no text to train on".to_owned()));
        }
        // Every character is a piece; the library miscounts where the vocabulary has no room for more.
        let characters: BTreeSet<char> = words.keys().flat_map(|word| word.chars()).collect();
        if characters.len() + SPECIAL.len() >= vocabulary as usize {
            return Err(StudentError::Tokenizer(format!(
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
            .map_err(|error| StudentError::Tokenizer(error.to_string()))?;
        let mut model = Unigram::default();
        // The library sums over as many chunks as there are threads: one, so that no number of cores shows in the sums.
        // It counts words in a map whose order changes from process to process: here they are sorted.
        rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .map_err(|error| StudentError::Tokenizer(format!("a thread cannot be started: {error}")))?
            .install(|| trainer.do_train(words.into_iter().collect(), &mut model))
            .map_err(failed)?;
        inner.with_model(sorted(&model).map_err(failed)?);
        inner.add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true))).map_err(failed)?;
        Ok(Self { inner, end: END, pad: PAD, unknown: Some(UNKNOWN), appends_end: true })
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
    Unigram::from(vocabulary, Some(UNKNOWN as usize), false)
}
