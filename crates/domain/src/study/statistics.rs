//! What the answers of several students (one for each seed) to the same rows say: a mean, how sure we are of it, and what it
//! takes to tell a difference.
//!
//! Rows and seeds are crossed: every seed's student answers every row. Another experiment would have other rows and other seeds,
//! so both are resampled. A resample of the rows takes each row with all of its answers; it matters only by its sum, whose
//! distribution is computed and then drawn from. Of the few seeds that there are a resample of themselves says little: the
//! mean moves by normal draws of the variance between seeds, as an analysis of variance finds it. Resampling the seeds' answers
//! would count the noise of single answers twice (Owen 2007). That variance is pooled over all questions of a table, and the
//! question's own is taken where it is larger: by itself, one of two or three seeds is often estimated as 0 where it is not.
//! Draws are widened as Student's distribution is beside the normal one, with Satterthwaite's degrees of freedom.

use super::lattice::{Draws, Lattice};
use crate::metric::SplitMix;
use std::collections::BTreeMap;

/// How many resamples an interval and a p-value rest on.
pub const DRAWS: u32 = 10_000;
/// Claims are made at this level.
pub const LEVEL: f64 = 0.05;
/// How likely a difference that is promised to be found is found.
pub const POWER: f64 = 0.8;

/// The two-sided 95% of the normal distribution.
const NORMAL_95: f64 = 1.959_963_984_540_054;
/// The resamples of every measurement begin with this: equal answers give equal intervals.
const SEED: u64 = 0x5374_7564_7920_3031;
/// Where sums of resamples have a standard deviation beyond this, they are drawn from their normal limit.
const EXACT_DEVIATION_MAX: f64 = 32.0;

/// Values of rows under several seeds: whether an answer is right (0 or 1), or by how much one is better than another (-1 to 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scores {
    /// For each seed the value of each row, all of the same rows.
    by_seed: Vec<Vec<i8>>,
    /// The least value that there can be: 0 or -1.
    least: i8,
}

/// A mean of values, and how sure we are of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// The lower end of its 95% interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// How likely a mean at least this far from 0 is where it is 0 in truth, by swapping the two answers of rows, and the
    /// deviations of seeds.
    pub p_value: f64,
    /// The standard error, widened as the draws are.
    pub error: f64,
    /// The part of it that more rows do not lessen: that of the seeds.
    pub error_of_seeds: f64,
}

impl Scores {
    /// Whether each row was answered right, for each seed.
    pub fn right(by_seed: &[Vec<bool>]) -> Self {
        let by_seed =
            by_seed.iter().map(|rows| rows.iter().map(|right| i8::from(*right)).collect()).collect();
        Self { by_seed, least: 0 }
    }

    /// By how much the first of two arms is better on each row, for each seed. Seeds and rows are paired by their place.
    pub fn difference(first: &[Vec<bool>], second: &[Vec<bool>]) -> Self {
        let of_rows = |(first, second): (&Vec<bool>, &Vec<bool>)| {
            first.iter().zip(second).map(|(first, second)| i8::from(*first) - i8::from(*second)).collect()
        };
        Self { by_seed: first.iter().zip(second).map(of_rows).collect(), least: -1 }
    }

    /// The share of rows and seeds whose value is not 0: of differences, where the two disagree.
    pub fn discordance(&self) -> f64 {
        let all: usize = self.by_seed.iter().map(Vec::len).sum();
        let differing = self.by_seed.iter().flatten().filter(|value| **value != 0).count();
        differing as f64 / all.max(1) as f64
    }

    fn rows(&self) -> usize {
        self.by_seed.iter().map(Vec::len).min().unwrap_or(0)
    }

    /// The sum of each row's values over the seeds.
    fn sums(&self) -> Vec<i64> {
        let mut sums = vec![0_i64; self.rows()];
        for values in &self.by_seed {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += i64::from(*value);
            }
        }
        sums
    }
}

/// The means of the questions of one table, each over rows and seeds, with intervals and p-values. Everything is possible where
/// there are no rows.
pub fn estimates(table: &[Scores]) -> Vec<Estimate> {
    let variances: Vec<Variances> = table.iter().map(Variances::of).collect();
    let pooled = Pooled::of(&variances);
    table.iter().zip(&variances).map(|(scores, variances)| estimate(scores, variances, &pooled)).collect()
}

fn estimate(scores: &Scores, variances: &Variances, pooled: &Pooled) -> Estimate {
    let (rows, seeds) = (scores.rows(), scores.by_seed.len());
    if rows == 0 {
        let low = f64::from(scores.least);
        return Estimate { value: 0.0, low, high: 1.0, p_value: 1.0, error: 1.0, error_of_seeds: 0.0 };
    }
    let counts = counted(&scores.sums());
    let between = pooled.between(variances);
    Resampled { rows, seeds, least: i64::from(scores.least), counts, between }.estimate()
}

fn counted(sums: &[i64]) -> BTreeMap<i64, u64> {
    let mut counts = BTreeMap::new();
    for sum in sums {
        *counts.entry(*sum).or_default() += 1;
    }
    counts
}

/// The two-way analysis of variance of one question, with one value in each cell.
struct Variances {
    rows: f64,
    seeds: f64,
    /// The mean square between seeds.
    between: f64,
    /// The mean square of what neither rows nor seeds explain.
    within: f64,
}

impl Variances {
    fn of(scores: &Scores) -> Self {
        let (seeds, rows) = (scores.by_seed.len() as f64, scores.rows() as f64);
        if seeds < 2.0 || rows < 2.0 {
            return Self { rows, seeds, between: 0.0, within: 0.0 };
        }
        let mean_of = |values: &Vec<i8>| values.iter().map(|value| f64::from(*value)).sum::<f64>() / rows;
        let means: Vec<f64> = scores.by_seed.iter().map(mean_of).collect();
        let mean = means.iter().sum::<f64>() / seeds;
        let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let of_all = squares(&mut scores.by_seed.iter().flatten().map(|value| f64::from(*value) - mean));
        let of_seeds = squares(&mut means.iter().map(|value| value - mean));
        let of_rows = squares(&mut scores.sums().iter().map(|sum| *sum as f64 / seeds - mean));
        let of_cells = (of_all - rows * of_seeds - seeds * of_rows).max(0.0);
        Self {
            rows,
            seeds,
            between: rows * of_seeds / (seeds - 1.0),
            within: of_cells / ((seeds - 1.0) * (rows - 1.0)),
        }
    }

    /// The variance between seeds, beyond their answers to single rows; below 0 by chance where there is none.
    fn component(&self) -> f64 {
        (self.between - self.within) / self.rows.max(1.0)
    }
}

/// What the questions of a table say of the variance between seeds, together.
struct Pooled {
    component: f64,
    questions: f64,
}

/// The questions of a table share arms: together they say less than as many tables would.
const SHARED_ARMS: f64 = 2.0;

/// The variance between seeds, as a question's mean has it.
struct BetweenSeeds {
    /// Of the mean.
    variance: f64,
    /// Of the mean, with the noise of single answers that it was found through.
    shown: f64,
    /// Degrees of freedom of what was found.
    freedom: f64,
}

impl Pooled {
    fn of(table: &[Variances]) -> Self {
        let questions = table.len() as f64;
        let sum: f64 = table.iter().map(Variances::component).sum();
        Self { component: sum / questions.max(1.0), questions }
    }

    fn between(&self, question: &Variances) -> BetweenSeeds {
        let own = question.component();
        let of_one = (question.seeds - 1.0).max(1.0);
        let freedom =
            if own > self.component { of_one } else { of_one * (self.questions / SHARED_ARMS).max(1.0) };
        let component = own.max(self.component).max(0.0);
        BetweenSeeds {
            variance: component / question.seeds.max(1.0),
            shown: (component + question.within / question.rows.max(1.0)) / question.seeds.max(1.0),
            freedom,
        }
    }
}

impl BetweenSeeds {
    /// How much wider than the normal distribution Student's is, by Satterthwaite's degrees of freedom of a variance that is in
    /// part that between seeds.
    fn widening(&self, of_rows: f64) -> f64 {
        if self.variance <= 0.0 {
            return 1.0;
        }
        let all = of_rows + self.variance;
        let freedom = all * all * self.freedom / (self.shown * self.shown);
        student_95(freedom.max(1.0)) / NORMAL_95
    }

    /// How far the seeds of another experiment move the mean.
    fn draw(&self, generator: &mut SplitMix) -> f64 {
        if self.variance <= 0.0 { 0.0 } else { self.variance.sqrt() * normal(generator) }
    }
}

/// The two-sided 95% of Student's distribution (Abramowitz and Stegun 26.7.5).
fn student_95(freedom: f64) -> f64 {
    let z = NORMAL_95;
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    z + (z3 + z) / (4.0 * freedom)
        + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2))
        + (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3))
}

/// Everything that resamples depend on.
struct Resampled {
    rows: usize,
    seeds: usize,
    least: i64,
    /// Rows by the sum of their values over the seeds.
    counts: BTreeMap<i64, u64>,
    between: BetweenSeeds,
}

impl Resampled {
    fn estimate(&self) -> Estimate {
        let whole = (self.rows * self.seeds) as f64;
        let sum: f64 = self.counts.iter().map(|(value, rows)| *value as f64 * *rows as f64).sum();
        let value = sum / whole;
        // Half a row at either end (after Agresti and Min 2005): without it, students that agree on all of a few rows would
        // have the interval from 0 to 0.
        let ends = [(self.least * self.seeds as i64, 0.5), (self.seeds as i64, 0.5)];
        let weights = self.counts.iter().map(|(value, rows)| (*value, *rows as f64)).chain(ends);
        let moment = |power: i32| {
            let sum: f64 = weights.clone().map(|(value, weight)| (value as f64).powi(power) * weight).sum();
            sum / (self.rows as f64 + 1.0)
        };
        let mean = moment(1);
        let deviation = ((moment(2) - mean * mean).max(0.0) * self.rows as f64).sqrt();
        let of_rows = (deviation / whole).powi(2);
        let widening = self.between.widening(of_rows);
        let mut generator = SplitMix::new(SEED);
        let sums = Sums::of(weights, self.rows, mean, deviation);
        let mut draws: Vec<f64> = (0..DRAWS)
            .map(|_| sums.draw(&mut generator) / whole + self.between.draw(&mut generator))
            .collect();
        draws.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (share * f64::from(DRAWS - 1)).round() as usize;
            value + (draws.get(place).copied().unwrap_or(value) - value) * widening
        };
        let least = self.least as f64;
        Estimate {
            value,
            low: at(0.025).min(value).max(least),
            high: at(0.975).max(value).min(1.0),
            p_value: self.p_value(value, widening, &mut generator),
            error: (of_rows + self.between.variance).sqrt() * widening,
            error_of_seeds: self.between.variance.sqrt() * widening,
        }
    }

    fn p_value(&self, value: f64, widening: f64, generator: &mut SplitMix) -> f64 {
        // Where two students are equally good, a row's difference could as well be the other way round. Rows with the same
        // difference are swapped together: how many of them are is binomial.
        let mut flipped = BTreeMap::new();
        for (value, rows) in &self.counts {
            *flipped.entry(value.unsigned_abs()).or_insert(0_u64) += rows;
        }
        let swaps: Vec<(f64, f64, Draws)> = flipped
            .into_iter()
            .filter(|(size, _)| *size > 0)
            .map(|(size, rows)| {
                let coins = Lattice::of([(0, 1.0), (1, 1.0)].into_iter()).sum_of(rows);
                (size as f64, rows as f64, coins.draws())
            })
            .collect();
        let whole = (self.rows * self.seeds) as f64;
        let at_least = (0..DRAWS)
            .filter(|_| {
                let of_rows: f64 = swaps
                    .iter()
                    .map(|(size, rows, swapped)| {
                        size * (2.0 * swapped.at(generator.next_f64()) as f64 - rows)
                    })
                    .sum();
                let drawn = (of_rows / whole + self.between.draw(generator)) * widening;
                drawn.abs() >= value.abs() - 1e-12
            })
            .count();
        (at_least as f64 + 1.0) / (f64::from(DRAWS) + 1.0)
    }
}

/// The sums of resamples of the rows.
enum Sums {
    /// As they are distributed.
    Exact(Draws),
    /// Of so many rows that their normal limit is as good.
    Limit { mean: f64, deviation: f64 },
}

impl Sums {
    fn of(weights: impl Iterator<Item = (i64, f64)> + Clone, rows: usize, mean: f64, deviation: f64) -> Self {
        if deviation > EXACT_DEVIATION_MAX {
            return Self::Limit { mean: mean * rows as f64, deviation };
        }
        Self::Exact(Lattice::of(weights).sum_of(rows as u64).draws())
    }

    fn draw(&self, generator: &mut SplitMix) -> f64 {
        match self {
            Self::Exact(draws) => draws.at(generator.next_f64()) as f64,
            Self::Limit { mean, deviation } => mean + deviation * normal(generator),
        }
    }
}

/// A draw from the standard normal distribution.
fn normal(generator: &mut SplitMix) -> f64 {
    // The quantile of 0 would be infinite.
    normal_quantile(generator.next_f64().clamp(1e-9, 1.0 - 1e-9))
}

/// The value that the standard normal distribution exceeds with a probability of 1 - `share` (Acklam 2003, to nine digits).
#[allow(clippy::unreadable_literal, reason = "published coefficients")]
fn normal_quantile(share: f64) -> f64 {
    let polynomial =
        |coefficients: &[f64], at: f64| coefficients.iter().fold(0.0, |sum, next| sum * at + next);
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 6] = [
        -5.447609879822406e1,
        1.615858368580409e2,
        -1.556989798598866e2,
        6.680131188771972e1,
        -1.328068155288572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 5] =
        [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0];
    const TAIL: f64 = 0.02425;
    if share < TAIL {
        let root = (-2.0 * share.ln()).sqrt();
        polynomial(&C, root) / polynomial(&D, root)
    } else if share > 1.0 - TAIL {
        -normal_quantile(1.0 - share)
    } else {
        let from_middle = share - 0.5;
        let square = from_middle * from_middle;
        from_middle * polynomial(&A, square) / polynomial(&B, square)
    }
}

/// p-values for a table of questions (Holm 1979): with these, the chance of any false claim in the table is at most that of one
/// question by itself. In the order of `p_values`.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<(usize, f64)> = p_values.iter().copied().enumerate().collect();
    order.sort_by(|left, right| left.1.total_cmp(&right.1).then(left.0.cmp(&right.0)));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, (place, p_value)) in order.into_iter().enumerate() {
        largest = largest.max(p_value * (p_values.len() - rank) as f64).min(1.0);
        if let Some(slot) = adjusted.get_mut(place) {
            *slot = largest;
        }
    }
    adjusted
}

/// The smallest difference that is found with a probability of 80%, of a standard error and so many questions in the table: one
/// that is claimed even where it is the first to pass Holm's test.
pub fn smallest_difference(error: f64, questions: usize) -> f64 {
    let claimed = normal_quantile(1.0 - LEVEL / (2.0 * questions.max(1) as f64));
    (claimed + normal_quantile(POWER)) * error
}

/// The standard error to expect of a paired difference, before anything is measured: of so many rows and seeds, where two
/// students disagree on the share `discordance` of the rows, and where two seeds have `shared` of that variance in common.
pub fn expected_error(rows: u64, seeds: usize, discordance: f64, shared: f64) -> f64 {
    let seeds = seeds.max(1) as f64;
    (discordance * (1.0 + (seeds - 1.0) * shared) / (seeds * rows.max(1) as f64)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paired::Pairs;

    fn estimate(scores: Scores) -> Estimate {
        estimates(&[scores])[0]
    }

    /// A fake trainer: students whose accuracy is known. A fifth of the rows is in doubt; of these every row has a chance of its
    /// own, and every arm a liking of its own, so that seeds agree more than chance has it. A student differs from the others of
    /// its arm by `jitter`.
    struct Trainer {
        generator: SplitMix,
        chances: Vec<(f64, bool)>,
        jitter: f64,
    }

    impl Trainer {
        fn new(rows: usize, jitter: f64, seed: u64) -> Self {
            let mut generator = SplitMix::new(seed);
            let chances = (0..rows)
                .map(|_| match generator.next_f64() {
                    drawn if drawn < 0.2 => (0.25 + 0.5 * generator.next_f64(), true),
                    drawn if drawn < 0.85 => (1.0, false),
                    _ => (0.0, false),
                })
                .collect();
            Self { generator, chances, jitter }
        }

        /// What the students of an arm get right that is better by `effect` (a share of all rows).
        fn arm(&mut self, effect: f64, seeds: usize) -> Vec<Vec<bool>> {
            let likings: Vec<f64> =
                self.chances.iter().map(|_| 0.4 * (self.generator.next_f64() - 0.5)).collect();
            (0..seeds)
                .map(|_| {
                    // All of an effect is in the rows that are in doubt.
                    let shift = (effect + self.jitter * normal(&mut self.generator)) / 0.2;
                    let rows = self.chances.iter().zip(&likings);
                    rows.map(|((chance, in_doubt), liking)| {
                        let moved = if *in_doubt { liking + shift } else { 0.0 };
                        self.generator.next_f64() < chance + moved
                    })
                    .collect()
                })
                .collect()
        }
    }

    /// One study: its estimates and p-values for "better by the effect" and for "no better".
    struct Study {
        promised: bool,
        found: bool,
        called: bool,
        held: bool,
    }

    fn study(rows: usize, seeds: usize, jitter: f64, effect: f64, seed: u64) -> Study {
        let mut trainer = Trainer::new(rows, jitter, seed);
        let [none, better, same] = [0.0, effect, 0.0].map(|effect| trainer.arm(effect, seeds));
        let table = [
            Scores::difference(&better, &none),
            Scores::difference(&better, &same),
            Scores::difference(&same, &none),
        ];
        let found = estimates(&table);
        let p_table = holm(&found.iter().map(|estimate| estimate.p_value).collect::<Vec<_>>());
        let is_claimed =
            |place: usize| p_table[place] <= LEVEL && (found[place].low > 0.0 || found[place].high < 0.0);
        Study {
            promised: smallest_difference(found[0].error, table.len()) <= effect,
            found: is_claimed(0) && found[0].value > 0.0,
            called: is_claimed(2),
            held: found[2].low <= 0.0 && found[2].high >= 0.0,
        }
    }

    /// 200 studies of each kind: an effect of two points is found in at least 80% of those that promise it (where promises are
    /// no chance), no effect is called one in at most 5%, and intervals hold the truth in at least 93%.
    #[test]
    fn planted_effects_are_found_as_often_as_promised() {
        // Rows, seeds, the standard deviation between seeds in shares of the rows, whether two points are promised.
        for (rows, seeds, jitter, is_promised) in
            [(2_200, 3, 0.0, true), (2_500, 4, 0.003, true), (1_000, 2, 0.005, false)]
        {
            let studies: Vec<Study> =
                (0..200).map(|seed| study(rows, seeds, jitter, 0.02, seed * 7_919 + rows as u64)).collect();
            let count = |is: fn(&Study) -> bool| studies.iter().filter(|study| is(study)).count();
            let (promised, called) = (count(|study| study.promised), count(|study| study.called));
            let found = count(|study| study.promised && study.found);
            let held = count(|study| study.held);
            let words = format!(
                "{rows} rows, {seeds} seeds, jitter {jitter}: {promised} promised, {found} found, {called} called, {held} held"
            );
            println!("{words}");
            assert_eq!(promised >= 100, is_promised, "{words}");
            assert!(!is_promised || found * 10 >= promised * 8, "{words}");
            assert!(called <= 10, "{words}");
            assert!(held >= 186, "{words}");
        }
    }

    fn rows(counts: [usize; 4]) -> (Vec<bool>, Vec<bool>) {
        let outcomes = [(true, true), (true, false), (false, true), (false, false)];
        outcomes.into_iter().zip(counts).flat_map(|(outcome, count)| vec![outcome; count]).unzip()
    }

    #[test]
    fn one_seed_is_the_paired_comparison_of_two_students() {
        for counts in
            [[700, 80, 60, 160], [850, 40, 40, 70], [100, 60, 10, 30], [3_000, 0, 0, 0], [5, 0, 0, 0]]
        {
            let (first, second) = rows(counts);
            let pairs: Pairs = first.iter().copied().zip(second.iter().copied()).collect();
            let exact = pairs.difference();
            let found = estimate(Scores::difference(&[first], &[second]));
            let near = 3.0 / pairs.rows() as f64 + 0.002;
            assert!((found.value - exact.value).abs() < 1e-12, "{counts:?}");
            assert!(
                (found.low - exact.low).abs() < near && (found.high - exact.high).abs() < near,
                "{counts:?}: {found:?} {exact:?}"
            );
            assert!((found.p_value - exact.p_value).abs() < 0.02, "{counts:?}: {found:?} {exact:?}");
        }
    }

    #[test]
    fn seeds_that_differ_widen_the_interval_and_equal_ones_do_not_narrow_it() {
        let (first, second) = rows([700, 80, 60, 160]);
        let one = estimate(Scores::difference(std::slice::from_ref(&first), std::slice::from_ref(&second)));
        let copies = |rows: &Vec<bool>| vec![rows.clone(); 3];
        let same = estimate(Scores::difference(&copies(&first), &copies(&second)));
        assert!(
            (one.low - same.low).abs() < 0.004 && (one.high - same.high).abs() < 0.004,
            "{one:?} {same:?}"
        );
        let (other, _) = rows([640, 70, 120, 170]);
        let differing = estimate(Scores::difference(&[first.clone(), other, first], &copies(&second)));
        assert!(
            differing.error > 1.5 * same.error && differing.error_of_seeds > 0.0,
            "{differing:?} {same:?}"
        );
    }

    #[test]
    fn an_accuracy_has_the_interval_of_its_rows() {
        let right: Vec<bool> = (0..1_000).map(|row| row % 5 != 0).collect();
        let found = estimate(Scores::right(&[right]));
        let error = (0.8_f64 * 0.2 / 1_000.0).sqrt();
        assert!((found.value - 0.8).abs() < 1e-12);
        assert!((found.low - (0.8 - 1.96 * error)).abs() < 0.002, "{found:?}");
        assert!((found.high - (0.8 + 1.96 * error)).abs() < 0.002, "{found:?}");
        let perfect = estimate(Scores::right(&[vec![true; 50]]));
        assert!(perfect.high <= 1.0 && perfect.low < 1.0 && perfect.low > 0.9, "{perfect:?}");
        let none = estimate(Scores::right(&[]));
        assert_eq!((none.low, none.high, none.p_value), (0.0, 1.0, 1.0));
        // Many rows and seeds: the normal limit.
        let many: Vec<bool> = (0..60_000).map(|row| row % 2 == 0).collect();
        let found = estimate(Scores::right(&vec![many; 4]));
        assert!((found.low - 0.496).abs() < 0.0005 && (found.high - 0.504).abs() < 0.0005, "{found:?}");
    }

    #[test]
    fn quantiles_are_those_of_tables() {
        for (share, expected) in [(0.5, 0.0), (0.975, 1.959_964), (0.8, 0.841_621), (0.001, -3.090_232)] {
            assert!((normal_quantile(share) - expected).abs() < 1e-6, "{share}");
        }
        for (freedom, expected) in [(2.0, 4.303), (4.0, 2.776), (10.0, 2.228), (100.0, 1.984)] {
            let found = student_95(freedom);
            assert!((found / expected - 1.0).abs() < 0.05, "{freedom}: {found}");
        }
    }

    #[test]
    fn a_table_is_corrected_as_holm_does() {
        let found = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (found, expected) in found.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }

    #[test]
    fn more_rows_and_seeds_find_smaller_differences() {
        let smallest =
            |rows, seeds, questions| smallest_difference(expected_error(rows, seeds, 0.2, 0.3), questions);
        // By hand: (1.96 + 0.8416) * sqrt(0.2 / 1000).
        assert!((smallest(1_000, 1, 1) - 0.039_62).abs() < 1e-4);
        assert!(smallest(1_000, 3, 1) < smallest(1_000, 1, 1));
        assert!(smallest(4_000, 1, 1) < smallest(1_000, 1, 1));
        assert!(smallest(1_000, 1, 8) > smallest(1_000, 1, 1));
    }
}
