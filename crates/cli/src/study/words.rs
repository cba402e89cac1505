//! What a study found, for people: the same words on the terminal and on the page.

use crate::report::{grouped, percent};
use domain::paired::Finding;
use domain::spec::{Rationales, StudentSize};
use domain::study::{Answer, Arm, ClassAccuracy, Measured, Results, Route, Routing, Setting, Trust};
use serde_json::Value;

/// The header of [`settings`].
pub(crate) const SETTINGS: [&str; 7] =
    ["", "rows", "accuracy", "95% interval", "with a label", "teacher's rows", "parameters"];
/// The header of [`questions`].
pub(crate) const QUESTIONS: [&str; 6] =
    ["paired, in points", "rows", "difference", "95% interval", "p (Holm)", "finding"];

/// A share of the rows in points, with its sign.
pub(crate) fn points(share: f64) -> String {
    // Rounded first: there is no -0.0.
    let points = (share * 1000.0).round() / 10.0;
    format!("{:+.1}", if points == 0.0 { 0.0 } else { points })
}

/// An interval of points.
pub(crate) fn points_interval(low: f64, high: f64) -> String {
    format!("{} to {}", points(low), points(high))
}

/// An interval of shares.
pub(crate) fn percent_interval(low: f64, high: f64) -> String {
    format!("{} to {}", percent(low), percent(high))
}

/// A fraction of the rows as `25%` or `12.5%`.
pub(crate) fn fraction(setting: Setting) -> String {
    in_percent(setting.fraction())
}

/// A share as `25%` or `12.5%`: with as many digits as it has.
fn in_percent(share: f64) -> String {
    format!("{}%", (share * 1e6).round() / 1e4)
}

/// An arm, with the student's size where there are several.
fn name(arm: Arm, size: Option<StudentSize>) -> String {
    size.map_or_else(|| arm.words(), |size| format!("{} ({size})", arm.words()))
}

/// A row for the teacher, and one for each setting.
pub(crate) fn settings(results: &Results) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let teacher = results.teacher.iter().map(|teacher| {
        let all = vec![
            format!("teacher {}", teacher.name),
            dash(),
            percent(teacher.accuracy),
            percent_interval(teacher.low, teacher.high),
            dash(),
            percent(teacher.accuracy),
            dash(),
        ];
        all
    });
    let student = |measured: &Measured| {
        vec![
            name(measured.setting.arm, measured.setting.size),
            fraction(measured.setting),
            percent(measured.accuracy),
            percent_interval(measured.low, measured.high),
            percent(measured.parsed),
            measured.on_teachers_rows.map_or_else(dash, percent),
            grouped(measured.parameters),
        ]
    };
    teacher.chain(results.settings.iter().map(student)).collect()
}

/// A row for each question.
pub(crate) fn questions(results: &Results) -> Vec<Vec<String>> {
    let row = |answer: &Answer| {
        vec![
            format!(
                "{} less {}{}",
                name(answer.first.arm, answer.first.size),
                answer.against.words(),
                if answer.is_of_less() { " of all rows" } else { "" }
            ),
            fraction(answer.first),
            points(answer.difference.value),
            points_interval(answer.difference.low, answer.difference.high),
            p_value(answer.p_table),
            answer.finding.to_string(),
        ]
    };
    results.questions.iter().map(row).collect()
}

/// The header of [`trust`].
pub(crate) const TRUST: [&str; 6] =
    ["rationales of", "looked at", "come to a label", "the predicted one", "words shared", "words"];

/// Settings of all rows: the largest fraction.
fn of_all_rows(results: &Results) -> impl Iterator<Item = &Measured> {
    let most = results.settings.iter().map(|measured| measured.setting.millionths).max();
    results.settings.iter().filter(move |measured| Some(measured.setting.millionths) == most)
}

/// The header of [`classes`]: the label, its rows, and the arms.
pub(crate) fn classes_header(results: &Results) -> Vec<String> {
    let arms = of_all_rows(results).map(|measured| name(measured.setting.arm, measured.setting.size));
    ["right label", "rows"].into_iter().map(str::to_owned).chain(arms).collect()
}

/// A row for each label, with the accuracy of each arm on all rows; none where there are too many labels.
pub(crate) fn classes(results: &Results) -> Vec<Vec<String>> {
    let columns: Vec<&Measured> = of_all_rows(results).collect();
    let labels = columns.first().map(|measured| measured.classes.as_slice()).unwrap_or_default();
    let row = |(place, class): (usize, &ClassAccuracy)| {
        let accuracy = |measured: &&Measured| {
            measured.classes.get(place).map_or_else(|| "-".to_owned(), |class| percent(class.accuracy))
        };
        let head = [class.label.clone(), grouped(class.rows)];
        head.into_iter().chain(columns.iter().map(accuracy)).collect()
    };
    labels.iter().enumerate().map(row).collect()
}

/// A row for each arm of all rows that writes rationales.
pub(crate) fn trust(results: &Results) -> Vec<Vec<String>> {
    let row = |(measured, trust): (&Measured, &Trust)| {
        let or_dash = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), percent);
        vec![
            name(measured.setting.arm, measured.setting.size),
            grouped(trust.rationales),
            percent(trust.concluding),
            or_dash(trust.agreeing),
            or_dash(trust.overlap),
            format!("{:.1}", trust.words),
        ]
    };
    of_all_rows(results).filter_map(|measured| Some((measured, measured.trust.as_ref()?))).map(row).collect()
}

/// The shares of rows that go to the teacher, as columns.
pub(crate) fn routing_header(results: &Results) -> Vec<String> {
    let shares = results.routing.first().map(|routing| routing.shares.as_slice()).unwrap_or_default();
    let shares = shares.iter().map(|route| in_percent(route.asked));
    std::iter::once("rows to the teacher".to_owned()).chain(shares).collect()
}

/// For each arm of all rows: right answers of its own, and with the teacher's.
pub(crate) fn routing(results: &Results) -> Vec<Vec<String>> {
    let row = |routing: &Routing, words: &str, share: fn(&Route) -> Option<f64>| -> Vec<String> {
        let shares = routing.shares.iter().map(|route| share(route).map_or_else(|| "-".to_owned(), percent));
        let head = format!("{}: {words}", name(routing.setting.arm, routing.setting.size));
        std::iter::once(head).chain(shares).collect()
    };
    let rows = |routing: &Routing| {
        let own = row(routing, "its own answers", |route| route.answered);
        let is_measured = routing.shares.iter().any(|route| route.together.is_some());
        let both = is_measured.then(|| row(routing, "with the teacher's", |route| route.together));
        std::iter::once(own).chain(both).collect::<Vec<_>>()
    };
    results.routing.iter().flat_map(rows).collect()
}

/// A sentence for each arm, where an accuracy is wanted: from which sureness on it is kept, and what the teacher then costs.
pub(crate) fn kept(results: &Results, bill: &Value) -> Vec<String> {
    let count = |name: &str| bill.get(name).and_then(Value::as_u64).unwrap_or(0) as f64;
    let sentence = |routing: &Routing| {
        let kept = routing.kept.as_ref()?;
        let arm = name(routing.setting.arm, routing.setting.size);
        let Some(answered) = kept.answered else {
            return Some(format!(
                "{arm}: no threshold keeps {}: every row would go to the teacher.",
                percent(kept.wanted)
            ));
        };
        let Some(below) = kept.below else {
            let (wanted, answered) = (percent(kept.wanted), percent(answered));
            return Some(format!(
                "{arm}: for {wanted} right, no row has to go to the teacher: {answered} are."
            ));
        };
        let cost = match count("calls") {
            calls if calls > 0.0 => format!(
                ": about {:.0} calls, {:.0} tokens and {:.4} of money for a thousand requests",
                kept.asked * 1e3,
                kept.asked * 1e3 * (count("tokens_in") + count("tokens_out")) / calls,
                kept.asked * 1e3 * count("money_micros") / calls / 1e6,
            ),
            _ => String::new(),
        };
        Some(format!(
            "{arm}: for {} right, ask the teacher where the answer's log-probability is below {below:.4}: {} of the rows; of \
             the others {} are right{cost}.",
            percent(kept.wanted),
            percent(kept.asked),
            percent(answered),
        ))
    };
    results.routing.iter().filter_map(sentence).collect()
}

fn p_value(value: f64) -> String {
    if value < 0.001 { "<0.001".to_owned() } else { format!("{value:.3}") }
}

/// What all rows say of each arm with rationales of its own, where fewer rows say more, with how many fewer rows they do as well, and
/// what the control and the size of the study leave open.
pub(crate) fn sentences(results: &Results) -> Vec<String> {
    let explained = || results.settings.iter().map(|measured| measured.setting).filter(is_explained);
    let Some(largest) = explained().next_back() else { return Vec::new() };
    let of_all: Vec<Setting> =
        explained().filter(|setting| *setting == Setting { arm: setting.arm, ..largest }).collect();
    let mut sentences: Vec<String> =
        of_all.iter().filter_map(|setting| beside_labels_only(results, *setting)).collect();
    if sentences.is_empty() {
        return sentences;
    }
    sentences.extend(most_gained(results, largest));
    sentences.extend(as_good_with_less(results, largest.size));
    let Some(&first) = of_all.first() else { return sentences };
    let control = results.questions.iter().find(|answer| {
        answer.first == first && answer.against.rationales == Rationales::Shuffled && !answer.is_of_less()
    });
    if let Some(control) = control {
        sentences.push(format!(
            "Beside students that learn other rows' rationales the difference of {} is {} points ({}), {}; differences below \
             {:.1} points would have been missed more often than once in five such studies.",
            first.arm.words(),
            points(control.difference.value),
            points_interval(control.difference.low, control.difference.high),
            control.finding,
            control.smallest_difference * 100.0,
        ));
    }
    sentences
}

/// Whether a setting's students learn rationales, and those of their own rows.
fn is_explained(setting: &Setting) -> bool {
    setting.arm.rationales == Rationales::Own && setting.arm.objective.needs_rationales()
}

/// An arm and labels only, from the same rows.
fn beside_labels_only(results: &Results, setting: Setting) -> Option<String> {
    let measured = results.measured(setting)?;
    let control = results.measured(Setting { arm: Arm::NONE, ..setting })?;
    let gain = results.answer(setting, Arm::NONE)?;
    let rows = if setting.fraction() < 1.0 {
        format!("{} of the rows", fraction(setting))
    } else {
        "all rows".to_owned()
    };
    Some(format!(
        "Learning {} from {rows}, students are right on {} of {} test rows, and on {} with labels only: {} points \
         (95% interval {}), {}.",
        setting.arm.words(),
        percent(measured.accuracy),
        grouped(results.test_rows),
        percent(control.accuracy),
        points(gain.difference.value),
        points_interval(gain.difference.low, gain.difference.high),
        gain.finding,
    ))
}

/// Where rationales bring most, if that is from a part of the rows.
fn most_gained(results: &Results, largest: Setting) -> Option<String> {
    let gains = results.questions.iter().filter(|answer| {
        answer.against == Arm::NONE
            && is_explained(&answer.first)
            && !answer.is_of_less()
            && answer.first.size == largest.size
            && answer.finding == Finding::Better
    });
    let most = gains.max_by(|one, other| one.difference.value.total_cmp(&other.difference.value))?;
    if most.first.millionths == largest.millionths {
        return None;
    }
    beside_labels_only(results, most.first)
}

/// The first part of the rows that is enough with rationales.
fn as_good_with_less(results: &Results, size: Option<StudentSize>) -> Option<String> {
    let mut with_less =
        results.questions.iter().filter(|answer| answer.is_of_less() && answer.first.size == size).peekable();
    with_less.peek()?;
    let is_as_good = |answer: &&Answer| matches!(answer.finding, Finding::Better | Finding::NoDifference);
    let Some(answer) = with_less.find(is_as_good) else {
        let words = "No smaller part of the rows with rationales was shown to do as well as all of them with labels only.";
        return Some(words.to_owned());
    };
    Some(format!(
        "Students that learn {} from {} of the rows do as well as with labels only from all of them: {} points ({}), {}.",
        answer.first.arm.words(),
        fraction(answer.first),
        points(answer.difference.value),
        points_interval(answer.difference.low, answer.difference.high),
        answer.finding,
    ))
}

/// What it takes to know more, beneath the table.
pub(crate) fn power(results: &Results) -> String {
    let smallest = results.questions.iter().map(|answer| answer.smallest_difference).fold(0.0, f64::max);
    let rows = results.questions.iter().map(|answer| answer.rows_for_one_point).max_by_key(|rows| {
        // Where no number of rows is enough, that is the most.
        rows.unwrap_or(u64::MAX)
    });
    let one_point = match rows.flatten() {
        Some(rows) => format!("one point would take about {} test rows", grouped(rows)),
        None => "one point would take more seeds".to_owned(),
    };
    format!(
        "{} test rows, {} seeds, {} questions: every difference of {:.1} points is found in four of five such studies; {one_point}",
        grouped(results.test_rows),
        results.seeds.len(),
        results.questions.len(),
        smallest * 100.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::objective::Objective;
    use domain::paired::Difference;

    const QUARTER: u32 = 250_000;
    const ALL: u32 = 1_000_000;
    const STEP_BY_STEP: Arm = Arm { objective: Objective::StepByStep, rationales: Rationales::Own };
    const SHUFFLED: Arm = Arm { objective: Objective::StepByStep, rationales: Rationales::Shuffled };

    fn measured(arm: Arm, millionths: u32) -> Measured {
        Measured {
            setting: Setting { arm, millionths, size: None },
            parameters: 1,
            accuracy: 0.5,
            low: 0.4,
            high: 0.6,
            parsed: 1.0,
            on_teachers_rows: None,
            classes: Vec::new(),
            trust: None,
        }
    }

    /// An arm less labels only, from the same rows.
    fn gain(arm: Arm, millionths: u32, value: f64, finding: Finding) -> Answer {
        Answer {
            first: Setting { arm, millionths, size: None },
            against: Arm::NONE,
            against_fraction: f64::from(millionths) / 1e6,
            difference: Difference { value, low: value - 0.02, high: value + 0.02, p_value: 0.01 },
            p_table: 0.01,
            finding,
            discordance: 0.1,
            smallest_difference: 0.03,
            rows_for_one_point: None,
        }
    }

    #[test]
    fn where_most_is_gained_is_told_of_rationales_and_not_of_their_control() {
        let arms = [Arm::NONE, STEP_BY_STEP, SHUFFLED];
        let results = Results {
            format: 1,
            study: "s".to_owned(),
            task: "t".to_owned(),
            test_rows: 2_000,
            seeds: vec![0],
            margin: 0.02,
            teacher: None,
            settings: [QUARTER, ALL].iter().flat_map(|part| arms.map(|arm| measured(arm, *part))).collect(),
            questions: vec![
                gain(STEP_BY_STEP, QUARTER, 0.05, Finding::Better),
                gain(SHUFFLED, QUARTER, 0.09, Finding::Better),
                gain(STEP_BY_STEP, ALL, 0.01, Finding::NotDecided),
                gain(SHUFFLED, ALL, 0.08, Finding::Better),
            ],
            routing: Vec::new(),
            cells: Vec::new(),
        };
        let said = sentences(&results);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("Learning step by step from all rows") && said[0].contains("+1.0 points")
        );
        assert!(said[1].starts_with("Learning step by step from 25% of the rows"), "{said:?}");
        assert!(said[1].contains("+5.0 points"), "{said:?}");
    }

    #[test]
    fn points_have_a_sign_and_no_negative_zero() {
        for (share, expected) in [(0.024, "+2.4"), (-0.0004, "+0.0"), (-0.0251, "-2.5"), (0.0, "+0.0")] {
            assert_eq!(points(share), expected);
        }
        assert_eq!((p_value(0.0004), p_value(0.0123)), ("<0.001".to_owned(), "0.012".to_owned()));
    }
}
