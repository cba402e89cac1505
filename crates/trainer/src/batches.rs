//! Which rows go through the model together. Everything here is a pure function of the seed and the lengths.

use crate::data::{TokenizedExample, TokenizedRow};
use domain::metric::SplitMix;

/// Batches of one pool are alike in length: it is sorted before it is cut.
const POOL_BATCHES: usize = 8;
/// What a pass costs beside its tokens, in tokens: between 65 and 250 were measured on CPUs, from tiny students to small ones
/// (benches/TRAINING.md).
const PASS_TOKENS: usize = 192;
/// Positions of padding that cost as much as a token: attention alone computes them (benches/TRAINING.md).
const PADDING_SHARE: usize = 2;

/// How many batches an epoch of `items` examples has.
pub fn per_epoch(items: usize, batch: usize) -> usize {
    items.div_ceil(batch.max(1)).max(1)
}

/// The batches of one epoch, as places in the list of examples: shuffled by (seed, epoch), sorted by length within
/// pools, and the batches of a pool shuffled again, so that length says nothing about order.
pub fn epoch(lengths: &[usize], batch: usize, seed: u64, epoch: u64) -> Vec<Vec<usize>> {
    let batch = batch.max(1);
    let mut generator = SplitMix::new(seed ^ epoch.wrapping_add(1).wrapping_mul(0xD134_2543_DE82_EF95));
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    generator.shuffle(&mut order);
    let mut batches = Vec::with_capacity(per_epoch(lengths.len(), batch));
    for pool in order.chunks(batch * POOL_BATCHES) {
        let mut pool = pool.to_vec();
        pool.sort_by_key(|place| (lengths.get(*place).copied().unwrap_or(0), *place));
        let mut cut: Vec<Vec<usize>> = pool.chunks(batch).map(<[usize]>::to_vec).collect();
        generator.shuffle(&mut cut);
        batches.extend(cut);
    }
    batches
}

/// Which loss a row counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossTerm {
    /// Under `predict: `.
    Label,
    /// Under `explain: `.
    Rationale,
}

/// A row with what its every target token counts for.
#[derive(Debug, Clone, Copy)]
pub struct WeightedRow<'a> {
    /// The row.
    pub row: &'a TokenizedRow,
    /// Its loss.
    pub term: LossTerm,
    /// The factor of each of its token losses in the whole loss.
    pub factor: f64,
    /// The factor of each of its token losses in its own loss.
    pub own: f64,
}

/// Every row of a batch, each token weighed so that the sum over all parts is
/// `alpha * L_label + (1 - alpha) * L_rationale`, each L a weighted mean over its own target tokens of the whole batch.
pub fn weighted_rows<'a>(items: &[&'a TokenizedExample], alpha: Option<f64>) -> Vec<WeightedRow<'a>> {
    let mass = |rows: &mut dyn Iterator<Item = &'a TokenizedRow>| -> f64 {
        rows.map(|row| row.weight * row.target.len() as f64).sum()
    };
    let labels = mass(&mut items.iter().flat_map(|item| &item.labels));
    let rationales = mass(&mut items.iter().flat_map(|item| &item.rationales));
    let alpha = alpha.unwrap_or(1.0);
    let share = |row: &'a TokenizedRow, term: LossTerm, part: f64, mass: f64| {
        let own = if mass > 0.0 { row.weight / mass } else { 0.0 };
        WeightedRow { row, term, factor: part * own, own }
    };
    let mut weighted_rows: Vec<WeightedRow<'a>> = Vec::new();
    for item in items {
        weighted_rows.extend(item.labels.iter().map(|row| share(row, LossTerm::Label, alpha, labels)));
        weighted_rows.extend(
            item.rationales.iter().map(|row| share(row, LossTerm::Rationale, 1.0 - alpha, rationales)),
        );
    }
    weighted_rows
}

/// Parts of at most `tokens_max` padded tokens; a single longer row is a part of its own. They are cut where the padding of
/// attention and passes together cost least.
pub fn micro_batches(weighted_rows: Vec<WeightedRow<'_>>, tokens_max: usize) -> Vec<Vec<WeightedRow<'_>>> {
    let target_first = |share: &WeightedRow<'_>| (share.row.target.len(), share.row.source.len());
    let source_first = |share: &WeightedRow<'_>| (share.row.source.len(), share.row.target.len());
    // Stable sorts: rows of the same lengths stay in the order of the batch.
    let (mut by_target, mut by_source) = (weighted_rows.clone(), weighted_rows);
    by_target.sort_by_key(target_first);
    by_source.sort_by_key(source_first);
    let (target_cost, target_cuts) = cuts(&by_target, tokens_max);
    let (source_cost, source_cuts) = cuts(&by_source, tokens_max);
    let (rows, cuts) =
        if target_cost <= source_cost { (by_target, target_cuts) } else { (by_source, source_cuts) };
    let mut rows = rows.into_iter();
    cuts.into_iter().map(|count| rows.by_ref().take(count).collect()).collect()
}

/// How many rows each part takes, of rows in their order, where the whole costs least; and that cost, in tokens.
fn cuts(rows: &[WeightedRow<'_>], tokens_max: usize) -> (usize, Vec<usize>) {
    // For the first rows up to each place: the least cost, and the rows of its last part.
    let mut best: Vec<(usize, usize)> = vec![(0, 0)];
    for end in 1..=rows.len() {
        let (mut source, mut target, mut tokens) = (0, 0, 0);
        let mut least = (usize::MAX, 1);
        for (count, share) in (1..).zip(rows.iter().take(end).rev()) {
            (source, target) = (source.max(share.row.source.len()), target.max(share.row.target.len()));
            tokens += share.row.source.len() + share.row.target.len();
            let padded = count * (source + target);
            if count > 1 && padded > tokens_max {
                break;
            }
            let before = best.get(end - count).map_or(0, |(cost, _)| *cost);
            least = least.min((before + tokens + (padded - tokens) / PADDING_SHARE + PASS_TOKENS, count));
        }
        best.push(least);
    }
    let mut cuts = Vec::new();
    let mut end = rows.len();
    while let Some((_, count)) = best.get(end).filter(|_| end > 0) {
        cuts.push(*count);
        end -= count;
    }
    cuts.reverse();
    (best.last().map_or(0, |(cost, _)| *cost), cuts)
}

/// Positions of a part as attention sees it: every row as long as the longest.
pub fn padded(part: &[WeightedRow<'_>]) -> usize {
    let longest = |of: &dyn Fn(&WeightedRow<'_>) -> usize| part.iter().map(of).max().unwrap_or(0);
    part.len() * (longest(&|share| share.row.source.len()) + longest(&|share| share.row.target.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(row: u64, source: usize, labels: usize, rationale: Option<(usize, f64)>) -> TokenizedExample {
        let encoded = |target: usize, weight: f64| TokenizedRow {
            source: vec![5; source],
            target: vec![6; target],
            weight,
        };
        TokenizedExample {
            row,
            labels: vec![encoded(labels, 1.0)],
            rationales: rationale.map(|(length, weight)| encoded(length, weight)).into_iter().collect(),
        }
    }

    #[test]
    fn an_epoch_visits_every_row_once_and_is_the_same_again() {
        let lengths: Vec<usize> = (0..103).map(|place| place * 7 % 40).collect();
        let first = epoch(&lengths, 8, 3, 0);
        assert_eq!(first, epoch(&lengths, 8, 3, 0));
        assert_ne!(first, epoch(&lengths, 8, 3, 1));
        assert_ne!(first, epoch(&lengths, 8, 4, 0));
        assert_eq!(first.len(), per_epoch(103, 8));
        let mut all: Vec<usize> = first.into_iter().flatten().collect();
        all.sort_unstable();
        assert_eq!(all, (0..103).collect::<Vec<_>>());
    }

    #[test]
    fn each_loss_is_a_mean_over_its_own_tokens() {
        let items = [item(0, 4, 2, Some((3, 0.5))), item(1, 4, 6, None), item(2, 4, 4, Some((5, 1.0)))];
        let weighted_rows = weighted_rows(&items.iter().collect::<Vec<_>>(), Some(0.8));
        let total = |term: LossTerm, of: &dyn Fn(&WeightedRow<'_>) -> f64| -> f64 {
            weighted_rows
                .iter()
                .filter(|share| share.term == term)
                .map(|share| of(share) * share.row.target.len() as f64)
                .sum()
        };
        assert!((total(LossTerm::Label, &|share| share.factor) - 0.8).abs() < 1e-12);
        assert!((total(LossTerm::Rationale, &|share| share.factor) - 0.2).abs() < 1e-12);
        assert!((total(LossTerm::Rationale, &|share| share.own) - 1.0).abs() < 1e-12);
        // The half-weight rationale of 3 tokens counts 1.5 of 6.5.
        let half = weighted_rows.iter().find(|share| share.term == LossTerm::Rationale).unwrap();
        assert!((half.own - 0.5 / 6.5).abs() < 1e-12);
    }

    #[test]
    fn parts_keep_their_budget_and_lose_nothing() {
        let items: Vec<TokenizedExample> =
            (0..20).map(|row| item(row, 3 + row as usize * 3, 4, Some((9, 1.0)))).collect();
        let all = weighted_rows(&items.iter().collect::<Vec<_>>(), Some(0.5));
        let count = all.len();
        let micro_batches = micro_batches(all, 256);
        assert!(micro_batches.len() > 1);
        for part in &micro_batches {
            let size = padded(part);
            assert!(size <= 256 || part.len() == 1, "{size}");
        }
        assert_eq!(micro_batches.iter().map(Vec::len).sum::<usize>(), count);
    }

    #[test]
    fn a_part_is_cut_where_padding_costs_more_than_a_pass() {
        let whole = |items: &[TokenizedExample]| {
            micro_batches(weighted_rows(&items.iter().collect::<Vec<_>>(), Some(0.5)), 100_000).len()
        };
        // Fifty rows of a label and a rationale, as in the paper's data sets.
        let like = |row: u64| item(row, 40 + row as usize % 16, 6, Some((40 + row as usize % 8, 1.0)));
        assert_eq!(whole(&(0..50).map(like).collect::<Vec<_>>()), 2);
        // So few that another pass costs more.
        assert_eq!(whole(&[like(0), like(1)]), 1);
        // One row that is far longer than the others.
        let mut items: Vec<TokenizedExample> = (0..50).map(like).collect();
        items.push(item(50, 1_000, 6, None));
        assert_eq!(whole(&items), 3);
    }
}
