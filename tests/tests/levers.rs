//! What the teacher is asked, and what is not: the smoke gate, hints, votes, cascades and plans, counted at its server.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use tests::data::{SpecText, is_hinted, question, teach};
use tests::folder::{Folder, Said};
use tests::teacher::{Reply, Teacher, TeacherRequest};

const JSON: &[&str] = &["run", "spec.toml", "--json", "--config", "profiles.toml"];

fn folder(rows: [usize; 3], teacher: &str, judging: &str) -> Folder {
    Folder::with_problems(rows, &SpecText { teacher, judging, ..SpecText::default() }).unwrap()
}

/// Writes the profiles `cheap` and `strong`, at prices of 1 and 20, and `local`.
fn profiles(folder: &Folder, cheap: &Teacher, strong: &Teacher) {
    let profile = |name: &str, url: &str, price: u32| {
        format!(
            "[teachers.{name}]\nurl = \"{url}\"\nconcurrency_max = 8\nprice_in_per_million = {price}\n\
             price_out_per_million = {price}\n"
        )
    };
    let text = profile("cheap", cheap.url(), 1) + &profile("strong", strong.url(), 20);
    folder.write("profiles.toml", text).unwrap();
}

fn run(folder: &Folder, teacher: &Teacher) -> (Said, Value) {
    let said = folder.say(teacher.url(), JSON).unwrap();
    let outcome = said.json().unwrap();
    (said, outcome)
}

/// A number between 0 and 99 for each question and sample.
fn draw(asked: &TeacherRequest, salt: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ salt ^ (asked.sample << 32);
    for byte in question(&asked.prompt).bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (hash ^ (hash >> 29)).wrapping_mul(0x9E37_79B9_7F4A_7C15) % 100
}

/// The text of a right or a wrong answer.
fn answer(asked: &TeacherRequest, is_right: bool, salt: u64) -> Reply {
    let numbers: Vec<u64> = question(&asked.prompt)
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    let (left, right) = (numbers[0], numbers[2]);
    let wrong = 1 + draw(asked, salt ^ 77) % 3;
    let right = if is_right { right } else { right + wrong };
    Reply::completion(&format!(" Ann buys {right} more, so we add. The answer is ({left} + {right})."))
}

/// A teacher that is right in so many of a hundred answers.
fn right_in(hundredths: u64, salt: u64) -> Teacher {
    Teacher::start(move |asked| answer(asked, draw(asked, salt) < hundredths, salt)).unwrap()
}

#[test]
fn the_smoke_gate_stops_before_the_rest_is_paid_for() {
    let folder = folder([60, 2, 2], "profile = \"local\"", "");
    folder.write("profiles.toml", "").unwrap();
    let teacher = Teacher::start(|_| Reply::completion(" I like pens very much.")).unwrap();
    let (said, outcome) = run(&folder, &teacher);
    assert_eq!((said.code, &outcome["state"]), (1, &"paused".into()), "{}", said.err);
    assert_eq!(teacher.requests(), 16, "the first rows only");
    let reason = outcome["reason"].as_str().unwrap();
    for words in ["smoke gate: 0 of 16 answers can be read", "no_answer 16", "I like pens very much."] {
        assert!(reason.contains(words), "wanted {words:?} in {reason:?}");
    }
    // Run again, the job asks about the other rows: a person has looked.
    let well = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let (said, outcome) = run(&folder, &well);
    assert_eq!((said.code, &outcome["state"]), (0, &"succeeded".into()), "{}", said.err);
    assert_eq!(well.requests(), 60 - 16 + 2);
}

#[test]
fn a_teacher_that_is_read_passes_the_gate() {
    let folder = folder([60, 2, 2], "profile = \"local\"", "");
    folder.write("profiles.toml", "").unwrap();
    let teacher = Teacher::start(|asked| match asked.before {
        0..8 => Reply::completion(" I like pens."),
        _ => teach(&asked.prompt),
    });
    let teacher = teacher.unwrap();
    let (said, _) = run(&folder, &teacher);
    assert_eq!((said.code, teacher.requests()), (0, 62), "{}", said.err);
}

#[test]
fn the_teacher_is_measured_on_as_many_rows_as_are_asked_for() {
    let folder = folder([10, 2, 40], "profile = \"local\"\nevaluate_rows = 15", "");
    folder.write("profiles.toml", "").unwrap();
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let (said, outcome) = run(&folder, &teacher);
    assert_eq!((said.code, teacher.requests()), (0, 25), "{}", said.err);
    // The student is compared on the same rows.
    assert!(outcome["student"]["accuracy_on_teachers_rows"].is_number(), "{outcome}");
    let people = folder.say(teacher.url(), &["run", "spec.toml", "--config", "profiles.toml"]).unwrap();
    assert!(people.out.contains("student, the same rows"), "{}", people.out);
}

#[test]
fn a_hint_comes_first_or_after() {
    for (hint, hinted, plain) in
        [("\"first\"", 20, 0), ("\"after\"", 4, 20), ("true", 4, 20), ("false", 0, 20)]
    {
        let folder = folder([20, 2, 2], "profile = \"local\"\nevaluate = false", &format!("hint = {hint}"));
        folder.write("profiles.toml", "").unwrap();
        // Wrong for every fifth question, unless it is told.
        let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
        let (said, _) = run(&folder, &teacher);
        assert_eq!(said.code, 0, "{hint}: {}", said.err);
        let counts = teacher.counts();
        let asked = |is: bool| -> usize {
            counts.iter().filter(|(prompt, _)| is_hinted(prompt) == is).map(|(_, count)| *count).sum()
        };
        assert_eq!((asked(true), asked(false)), (hinted, plain), "hint = {hint}");
    }
}

/// Train rows of the bills below.
const ROWS: usize = 400;

/// What a bill of a job came to: money, calls and accepted rationales.
fn bill(teacher_lines: &str, judging: &str, cheap: &Teacher, strong: &Teacher) -> (u64, u64, u64) {
    let lines = format!("{teacher_lines}\nevaluate = false");
    let folder = folder([ROWS, 2, 2], &lines, judging);
    profiles(&folder, cheap, strong);
    let (said, outcome) = run(&folder, cheap);
    assert_eq!(said.code, 0, "{}", said.err);
    let number = |name: &str| outcome["teacher"][name].as_u64().unwrap();
    (number("money_micros"), number("prompts"), number("accepted"))
}

#[test]
fn a_cascade_costs_half_of_the_strong_teacher_for_as_many_rationales() {
    let strong_alone = bill("profile = \"strong\"", "", &right_in(60, 1), &right_in(95, 2));
    let (cheap, strong) = (right_in(60, 1), right_in(95, 2));
    let cascade = bill("profiles = [\"cheap\", \"strong\"]", "", &cheap, &strong);
    println!(
        "strong alone: money {}, accepted {}; cascade: money {}, accepted {}, {} cheap and {} strong calls: {:.3} of it",
        strong_alone.0,
        strong_alone.2,
        cascade.0,
        cascade.2,
        cheap.requests(),
        strong.requests(),
        cascade.0 as f64 / strong_alone.0 as f64
    );
    assert_eq!(cheap.requests(), ROWS);
    assert!(2 * cascade.0 <= strong_alone.0 && cascade.2 >= strong_alone.2, "{strong_alone:?} {cascade:?}");
}

#[test]
fn votes_end_when_they_are_decided() {
    let votes = |accuracy: u64, confidence: &str| {
        let teacher = right_in(accuracy, 3);
        let lines = "profile = \"cheap\"\nsamples = 8";
        bill(lines, &format!("vote = true\nvote_confidence = {confidence}"), &teacher, &teacher)
    };
    for (accuracy, most) in [(95, 0.5), (60, 0.8)] {
        let (all, early) = (votes(accuracy, "1.0"), votes(accuracy, "0.9"));
        let share = early.1 as f64 / all.1 as f64;
        println!("a teacher right in {accuracy}%: {} of {} samples, {share:.3}", early.1, all.1);
        assert_eq!(all.1 as usize, 8 * ROWS);
        assert!(share <= most, "{share}");
    }
}

#[test]
fn a_plan_asks_nothing_and_says_what_would_be_asked() {
    let folder = folder([30, 2, 10], "profile = \"cheap\"\nrows = 20", "hint = \"after\"");
    let (cheap, strong) = (right_in(80, 4), right_in(95, 5));
    profiles(&folder, &cheap, &strong);
    let plan = |arguments: &[&str]| {
        let mut all = vec!["plan", "spec.toml", "--config", "profiles.toml"];
        all.extend(arguments);
        let said = folder.say(cheap.url(), &all).unwrap();
        assert_eq!(said.code, 0, "{}", said.err);
        said
    };
    let planned = plan(&["--json"]).json().unwrap();
    assert_eq!(cheap.requests(), 0, "nothing is asked");
    let stage = |place: usize, name: &str| planned["stages"][place][name].clone();
    assert_eq!((stage(0, "stage"), stage(0, "prompts")), ("train".into(), 20.into()), "{planned}");
    assert_eq!((stage(1, "stage"), stage(1, "prompts")), ("hints".into(), 6.into()), "{planned}");
    assert_eq!((stage(2, "stage"), stage(2, "prompts")), ("evaluate".into(), 10.into()), "{planned}");
    assert_eq!(planned["prompts"].as_array().unwrap().len(), 3);
    let people = plan(&[]);
    assert!(
        people.out.contains("--- the prompt of row 0 ---") && people.out.contains("at most:"),
        "{}",
        people.out
    );
    // Probed answers are shown whole, and kept.
    let probed = plan(&["--probe", "8", "--json"]).json().unwrap();
    assert_eq!((cheap.requests(), probed["probed"].as_array().unwrap().len()), (8, 8));
    let row = &probed["probed"][0];
    assert!(row["completion"].as_str().unwrap().contains("The answer is"), "{row}");
    assert!(row["verdict"] == "accepted" || row["reason"] == "disagrees", "{row}");
    let (said, outcome) = run(&folder, &cheap);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(outcome["teacher"]["cached"], 8, "{outcome}");
    let again = plan(&["--json"]).json().unwrap();
    assert_eq!(again["stages"][0]["from_store"], 20, "{again}");
}

#[test]
fn answers_are_asked_for_again_on_purpose_and_no_others() {
    fn text(training: &str) -> SpecText<'_> {
        SpecText { teacher: "profile = \"local\"\nevaluate = false", training, ..SpecText::default() }
    }
    let folder = Folder::with_problems([20, 2, 2], &text(SpecText::default().training)).unwrap();
    folder.write("profiles.toml", "").unwrap();
    // Wrong for every fifth question.
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let say = |arguments: &[&str]| {
        let mut all = arguments.to_vec();
        all.extend(["--config", "profiles.toml"]);
        folder.say(teacher.url(), &all).unwrap()
    };
    let mut asked = 0;
    let mut asks = |arguments: &[&str], expected: usize| {
        let said = say(arguments);
        assert_eq!(said.code, 0, "{}", said.err);
        let now = teacher.requests();
        assert_eq!(now - std::mem::replace(&mut asked, now), expected, "{arguments:?}");
        said
    };
    let run = ["run", "spec.toml", "--json"];
    asks(&run, 20);
    let disagree = ["ledger", "job", "--forget", "--reason", "disagrees"];
    let said = say(&disagree);
    assert_eq!(said.code, 2, "without --yes nothing is forgotten");
    assert!(said.err.contains("the answers of 4 entries would be asked for again"), "{}", said.err);
    let said = asks(&[&disagree[..], &["--yes"]].concat(), 0);
    assert!(said.out.contains("4 answers are forgotten, 0 prompts are asked again"), "{}", said.out);
    assert!(said.err.contains("the job's harvest is over"), "{}", said.err);
    // The finished job stays as it is; the next one over the same rows asks those four, and the one after it none.
    asks(&run, 0);
    for (training, expected) in [("steps = 3", 4), ("steps = 2", 0)] {
        let training = format!("{training}\nbatch_examples = 8\ntarget_tokens_max = 32");
        folder.write("spec.toml", text(&training).to_string()).unwrap();
        asks(&run, expected);
    }
    // All of them, once.
    let said = asks(&["run", "spec.toml", "--refresh", "--json"], 20);
    assert_eq!(said.json().unwrap()["teacher"]["cached"], 0);
    asks(&run, 0);
}
