//! What is told of a load: tables that fit 80 columns, sentences, and one object for scripts.

use super::tally::{HELD_SHARE, OfAsk, Percentiles, Tally};
use crate::args::Ask;
use crate::report::{grouped, percent};
use crate::terminal::table_text;
use serde_json::{Value, json};

/// What a knee is, and where it was found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Knee {
    /// The highest rate that was held.
    pub(crate) rate: Option<f64>,
    /// Milliseconds within which 99% of the answers have to come.
    pub(crate) p99_ms_max: f64,
}

/// From how many milliseconds on the generator's own lateness is told, and from which share of the answers' p99.
const LATE_MS_MIN: f64 = 5.0;
const LATE_SHARE_MIN: f64 = 0.1;

/// Everything, as people read it.
pub(crate) fn lines(tallies: &[Tally], knee: Option<Knee>) -> String {
    let mut parts = vec![
        "Calls (late: past the deadline; left: by --cancel; unsent: beyond --in-flight)".to_owned(),
        counts(tallies),
        "Milliseconds from when a call was due (1st: to a stream's first piece)".to_owned(),
        latencies(tallies),
    ];
    parts.extend(tallies.iter().flat_map(remarks));
    let versions = versions(tallies);
    if !versions.is_empty() {
        parts.push(format!("answered by {versions}"));
    }
    if let Some(knee) = knee {
        parts.push(knee_words(knee));
    }
    parts.join("\n")
}

/// One line for people while further rates are tried.
pub(crate) fn line(tally: &Tally) -> String {
    let times = tally.all.latency.percentiles();
    let p99 = times.map_or_else(|| "no answer".to_owned(), |times| format!("p99 {} ms", ms(times.p99)));
    format!("rate {}/s: {} of its calls answered, {p99}", rate(tally.rate), percent(tally.good_share()))
}

fn counts(tallies: &[Tally]) -> String {
    let header = ["rate/s", "due", "good/s", "good", "refused", "late", "left", "failed", "unsent"];
    let row = |tally: &Tally| {
        let numbers = [tally.refused, tally.deadline, tally.dropped, tally.failed(), tally.not_sent];
        let mut row =
            vec![rate(tally.rate), tally.due.to_string(), rate(tally.goodput()), percent(tally.good_share())];
        row.extend(numbers.iter().map(u64::to_string));
        row
    };
    table_text(&header, tallies.iter().map(row).collect())
}

fn latencies(tallies: &[Tally]) -> String {
    let header = ["rate/s", "task", "p50", "p90", "p99", "max", "1st p50", "1st p99"];
    let mut rows = Vec::new();
    for tally in tallies {
        rows.extend(tally.by_ask.iter().map(|(ask, of)| of_ask(tally.rate, ask.as_str(), of)));
        // One kind is all there is.
        if tally.by_ask.len() != 1 {
            rows.push(of_ask(tally.rate, "all", &tally.all));
        }
    }
    table_text(&header, rows)
}

fn of_ask(at: f64, name: &str, of: &OfAsk) -> Vec<String> {
    let told = |times: Option<Percentiles>, which: fn(&Percentiles) -> f64| {
        times.as_ref().map_or_else(|| "-".to_owned(), |times| ms(which(times)))
    };
    let (times, first) = (of.latency.percentiles(), of.first.percentiles());
    vec![
        rate(at),
        name.to_owned(),
        told(times, |times| times.p50),
        told(times, |times| times.p90),
        told(times, |times| times.p99),
        told(times, |times| times.max),
        told(first, |times| times.p50),
        told(first, |times| times.p99),
    ]
}

/// What else is to be known of a rate: refusals, failures, calls that were not sent, a generator that was late.
fn remarks(tally: &Tally) -> Vec<String> {
    let at = rate(tally.rate);
    let mut remarks = Vec::new();
    if let (Some(words), Some(times)) = (&tally.refusal, tally.refusals.percentiles()) {
        remarks.push(format!(
            "at {at}/s, {} calls were refused, half of them within {} ms and 99% within {} ms: {words}",
            grouped(tally.refused),
            ms(times.p50),
            ms(times.p99)
        ));
    }
    for (code, (count, words)) in &tally.failures {
        remarks.push(format!("at {at}/s, {} calls failed with {code}: {words}", grouped(*count)));
    }
    if tally.not_sent > 0 {
        remarks.push(format!(
            "at {at}/s, {} calls were due and not sent: as many were in flight as --in-flight allows",
            grouped(tally.not_sent)
        ));
    }
    let p99 = tally.all.latency.percentiles().map_or(0.0, |times| times.p99);
    if let Some(late) = tally.sent.percentiles()
        && late.p99 > LATE_MS_MIN.max(p99 * LATE_SHARE_MIN)
    {
        remarks.push(format!(
            "at {at}/s, 1% of the calls were sent more than {} ms late: this machine, too, is at its limit",
            ms(late.p99)
        ));
    }
    if tally.unnamed > 0 {
        remarks.push(format!("at {at}/s, {} answers named no version", grouped(tally.unnamed)));
    }
    remarks
}

fn versions(tallies: &[Tally]) -> String {
    let mut all = std::collections::BTreeMap::<&str, u64>::new();
    for (version, count) in tallies.iter().flat_map(|tally| &tally.versions) {
        *all.entry(version).or_default() += count;
    }
    let words: Vec<String> =
        all.iter().map(|(version, count)| format!("{version}: {}", grouped(*count))).collect();
    words.join(", ")
}

fn knee_words(knee: Knee) -> String {
    let held = format!(
        "at least {} of the calls answered, 99% of the answers within {} ms",
        percent(HELD_SHARE),
        ms(knee.p99_ms_max)
    );
    match knee.rate {
        Some(at) => format!("knee: {}/s is the highest rate that was held ({held})", rate(at)),
        None => format!("knee: not even the first rate was held ({held}): begin lower, with --from"),
    }
}

/// The rates of an object for scripts.
pub(crate) fn rates_json(tallies: &[Tally]) -> Value {
    tallies.iter().map(rate_json).collect()
}

fn rate_json(tally: &Tally) -> Value {
    let of_ask = |of: &OfAsk| {
        json!({
            "answered": of.answered,
            "latency_ms": of.latency.percentiles(),
            "first_piece_ms": of.first.percentiles(),
        })
    };
    let tasks: serde_json::Map<String, Value> =
        tally.by_ask.iter().map(|(ask, of): (&Ask, _)| (ask.as_str().to_owned(), of_ask(of))).collect();
    let failures: serde_json::Map<String, Value> = tally
        .failures
        .iter()
        .map(|(code, (count, words))| (code.clone(), json!({"calls": count, "first": words})))
        .collect();
    json!({
        "rate": tally.rate,
        "due": tally.due,
        "sent": tally.due.saturating_sub(tally.not_sent),
        "not_sent": tally.not_sent,
        "answered": tally.all.answered,
        "goodput": tally.goodput(),
        "good_share": tally.good_share(),
        "latency_ms": tally.all.latency.percentiles(),
        "first_piece_ms": tally.all.first.percentiles(),
        "tasks": tasks,
        "refused": tally.refused,
        "refused_ms": tally.refusals.percentiles(),
        "refusal": tally.refusal,
        "deadline_exceeded": tally.deadline,
        "dropped": tally.dropped,
        "failed": tally.failed(),
        "failures": failures,
        "sent_late_ms": tally.sent.percentiles(),
        "versions": tally.versions,
        "unnamed": tally.unnamed,
    })
}

/// A rate, as short as it can be said.
pub(crate) fn rate(rate: f64) -> String {
    let digits = match rate {
        0.0..10.0 => 2,
        10.0..1000.0 => 1,
        _ => 0,
    };
    let text = format!("{rate:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// Milliseconds with as many digits as matter.
pub(crate) fn ms(milliseconds: f64) -> String {
    let digits = match milliseconds {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{milliseconds:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally::{Done, End};
    use std::time::Duration;

    /// The longest that there can be, and one of everything.
    fn busy() -> Tally {
        let mut tally = Tally::new(99_999.9, 1).unwrap();
        let asks = [Ask::Predict, Ask::Explain, Ask::Generate];
        for ask in asks {
            let took = Duration::from_secs(120);
            let done = |end| Done { ask, end, sent: took, took, first: Some(took), at: took };
            tally.add(done(End::Answered(Some("reviews@12".to_owned())))).unwrap();
            tally.add(done(End::Refused("full".to_owned()))).unwrap();
            tally.add(done(End::Failed("UNAVAILABLE".to_owned(), "gone".to_owned()))).unwrap();
            tally.add(done(End::Answered(None))).unwrap();
        }
        tally.due = 9_999_999;
        tally.not_sent = 99_999;
        tally.dropped = 999_999;
        tally
    }

    #[test]
    fn tables_fit_80_columns() {
        let text = format!("{}\n{}", counts(&[busy(), busy()]), latencies(&[busy(), busy()]));
        let width = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width <= 80, "{width}:\n{text}");
    }

    #[test]
    fn what_is_unusual_is_said() {
        let knee = Knee { rate: Some(32.5), p99_ms_max: 1_000.0 };
        let text = lines(&[busy()], Some(knee));
        for wanted in [
            "at 100000/s, 3 calls were refused, half of them within 1",
            "3 calls failed with UNAVAILABLE: gone",
            "99,999 calls were due and not sent",
            "3 answers named no version",
            "this machine, too, is at its limit",
            "answered by reviews@12: 3",
            "knee: 32.5/s is the highest rate that was held (at least 95.0% of the calls answered, 99% of the answers within 1000 ms)",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in:\n{text}");
        }
        let none = lines(&[Tally::new(5.0, 1).unwrap()], Some(Knee { rate: None, ..knee }));
        assert!(none.contains("not even the first rate was held"), "{none}");
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [(0.5, "0.5"), (5.0, "5"), (32.5, "32.5"), (40.0, "40"), (1234.5, "1234")] {
            assert_eq!(rate(number), text);
        }
        for (number, text) in [(0.049, "0.05"), (9.991, "9.99"), (10.04, "10.0"), (120_000.0, "120000")] {
            assert_eq!(ms(number), text);
        }
    }
}
