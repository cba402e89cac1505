//! Log-likelihoods of candidates, in one pass over the tree of their prefixes.

use super::{Encoded, Engine, Fed, grouped, used};
use crate::Result;
use crate::cache::Cache;
use crate::head::{Need, Summary, summary};
use crate::step::Span;
use crate::tree::LabelTree;

/// Nodes of trees that pass together; a larger tree passes alone.
const TREE_TOKENS: usize = 512;

impl Engine {
    /// The log-likelihood of each candidate as the whole answer to `encoded`, the end token counted. It is not finite where
    /// the model's logits are not.
    ///
    /// One pass over the tree: each node is one position and sees its ancestors only. It is exact: every node's softmax is
    /// over the whole vocabulary. Leaving that out would be the same for a softmax over the candidates only at nodes through
    /// which all candidates pass (the root), and not at the nodes before the end tokens, which need it anyway.
    ///
    /// # Errors
    /// A candidate's token lies outside the vocabulary, or the row was encoded by another model. There is no memory, or a
    /// worker failed.
    pub fn score(&mut self, encoded: &Encoded, tree: &LabelTree) -> Result<Vec<f64>> {
        let scores = self.score_many(&[(encoded, tree)])?;
        Ok(scores.into_iter().next().unwrap_or_default())
    }

    /// [`Engine::score`] of several rows, in as few passes as fit; the same bits.
    ///
    /// # Errors
    /// As [`Engine::score`]: any row's fails all.
    pub fn score_many(&mut self, rows: &[(&Encoded, &LabelTree)]) -> Result<Vec<Vec<f64>>> {
        for (encoded, tree) in rows {
            encoded.check(&self.model)?;
            let ids: Vec<u32> = tree.nodes.iter().map(|node| node.token).collect();
            self.check_ids(&ids)?;
        }
        let mut scores = Vec::with_capacity(rows.len());
        for group in grouped(rows.to_vec(), TREE_TOKENS, |(_, tree)| tree.nodes()) {
            scores.extend(self.score_group(&group)?);
        }
        Ok(scores)
    }

    fn score_group(&mut self, rows: &[(&Encoded, &LabelTree)]) -> Result<Vec<Vec<f64>>> {
        let shape = &self.model.shape;
        let (start, end, vocabulary) = (shape.decoder_start_token_id, shape.eos_token_id, shape.vocab_size);
        let caches = self.caches(rows)?;
        let mut fed = Fed::default();
        for ((encoded, tree), own) in rows.iter().zip(&caches) {
            let first = fed.ids.len();
            for (index, node) in tree.nodes.iter().enumerate() {
                fed.ids.push(if index == 0 { start } else { node.token });
                fed.positions.push(node.depth);
                let ids = node.continuations(end);
                let places = fed.picks..fed.picks + ids.len();
                fed.picks = places.end;
                fed.needs.push(Need::Picks(ids, places));
            }
            let tokens = first..fed.ids.len();
            fed.spans.push(Span { own, cross: &encoded.cross, source: encoded.length, tokens });
        }
        self.decode(&fed)?;
        let needs = &fed.needs;
        let parts = used(self.parts.all_mut(), vocabulary, needs.len());
        let picks = self.picks.all_mut();
        let mut scores = Vec::with_capacity(rows.len());
        for ((_, tree), span) in rows.iter().zip(&fed.spans) {
            let summaries: Vec<Summary> =
                span.tokens.clone().map(|row| summary(parts, needs.len(), row)).collect();
            let of = |(node, continuation): &(usize, usize)| -> Option<f64> {
                let Need::Picks(_, places) = needs.get(span.tokens.start + node)? else { return None };
                let logit = picks.get(places.start + continuation)?;
                Some(summaries.get(*node)?.log_probability(*logit))
            };
            let sums =
                tree.paths.iter().map(|path| path.iter().map(|edge| of(edge).unwrap_or(f64::NAN)).sum());
            scores.push(sums.collect());
        }
        drop(fed);
        self.tree_caches = caches;
        Ok(scores)
    }

    /// A cache for each tree: those of the last call where they are large enough.
    fn caches(&mut self, rows: &[(&Encoded, &LabelTree)]) -> Result<Vec<Cache>> {
        let mut kept = std::mem::take(&mut self.tree_caches).into_iter();
        rows.iter()
            .map(|(_, tree)| match kept.next().filter(|cache| cache.capacity >= tree.positions()) {
                Some(cache) => Ok(cache),
                None => Cache::new(&self.model, tree.positions()),
            })
            .collect()
    }
}
