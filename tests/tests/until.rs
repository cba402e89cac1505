//! Asking until rationales stop helping, through the product: students that learn nothing show that rationales do not help,
//! so that the teacher is asked about an eighth of the rows, counted at its server.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::time::Duration;
use tests::binary;
use tests::data::{SpecText, teach};
use tests::dice::Dice;
use tests::folder::{Folder, NOBODY};
use tests::teacher::Teacher;

/// Of the train rows four are an eighth.
const ROWS: [usize; 3] = [32, 12, 6];
const CALLS: usize = 4 + 6;

#[test]
fn a_teacher_whose_rationales_do_not_help_is_asked_about_an_eighth_of_the_rows() {
    for select in ["stratified", "needed"] {
        let teacher =
            format!("profile = \"local\"\nuntil = \"no_gain\"\nselect = \"{select}\"\nprobe_steps = 2");
        let folder =
            Folder::with_problems(ROWS, &SpecText { teacher: &teacher, ..SpecText::default() }).unwrap();
        let plan = folder.say(NOBODY, &["plan", "spec.toml", "--json"]).unwrap();
        let plan = plan.json().unwrap();
        let calls = |name: &str| plan[name]["calls"].as_u64().unwrap();
        assert_eq!((calls("at_least"), calls("expected")), (CALLS as u64, 32 + 6), "{plan}");
        let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
        let said = folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap();
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(teacher.requests(), CALLS, "{select}: {}", said.err);
        for words in [
            "probe 1 of at most 4, without rationales: ",
            "the teacher is asked about 1/8 of the rows next",
            "probe 2 of at most 4, with rationales for 1/8 of the rows: ",
            "the teacher is asked about no more rows: a student without rationales is not worse",
        ] {
            assert!(said.err.contains(words), "{select}, {words}: {}", said.err);
        }
        check_shown(&folder, select);
        let again = folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap();
        assert_eq!((again.code, teacher.requests()), (0, CALLS), "the same job: {}", again.err);
    }
}

/// Processes that are killed.
const KILLS: u64 = 10;

#[test]
fn kills_change_neither_what_is_asked_nor_what_is_decided() {
    let teacher = "profile = \"local\"\nuntil = \"no_gain\"\nprobe_steps = 3";
    let spec = SpecText { teacher, ..SpecText::default() };
    let probes = |folder: &Folder| {
        let shown = folder.say(NOBODY, &["show", "job", "--json"]).unwrap().json().unwrap();
        let told = |probe: &Value| (probe["share"].clone(), probe["validation"].clone());
        shown["probes"].as_array().unwrap().iter().map(told).collect::<Vec<_>>()
    };
    let undisturbed = Folder::with_problems(ROWS, &spec).unwrap();
    let well = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    assert_eq!(undisturbed.say(well.url(), &["run", "spec.toml", "--json"]).unwrap().code, 0);

    let (mut dice, folder) = (Dice::new(), Folder::with_problems(ROWS, &spec).unwrap());
    folder.write("distillery.toml", "[teachers.local]\nconcurrency_max = 1\n").unwrap();
    let teacher = Teacher::start(|asked| teach(&asked.prompt).after(Duration::from_millis(40))).unwrap();
    let (mut killed, mut ended) = (0, false);
    while killed < KILLS && !ended {
        let mut child = binary::start(folder.path(), teacher.url(), &["run", "spec.toml", "--json"]).unwrap();
        // Between the first moments of a process and the end of a probe.
        std::thread::sleep(Duration::from_millis(150 + dice.below(700)));
        ended = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    let said = folder.say(teacher.url(), &["run", "spec.toml", "--json"]).unwrap();
    assert_eq!(said.code, 0, "{}", said.err);
    println!("{killed} kills: {} calls about {} prompts", teacher.requests(), teacher.counts().len());
    assert_eq!(teacher.counts().len(), CALLS, "what is asked about");
    assert!(teacher.requests() <= CALLS + usize::try_from(killed).unwrap(), "only what was in flight, again");
    assert_eq!(probes(&folder), probes(&undisturbed), "what the probes came to");
}

/// What `show` says of the probes.
fn check_shown(folder: &Folder, select: &str) {
    let shown = folder.say(NOBODY, &["show", "job", "--json"]).unwrap().json().unwrap();
    assert_eq!(shown["spec"]["teacher"]["select"], select);
    let probes = shown["probes"].as_array().unwrap();
    let shares: Vec<&Value> = probes.iter().map(|probe| &probe["share"]).collect();
    assert_eq!(shares, ["none", "eighth"], "{shown}");
    for (probe, objective) in probes.iter().zip(["standard", "step_by_step"]) {
        assert_eq!(
            (&probe["training"]["objective"], &probe["training"]["steps"]),
            (&objective.into(), &2.into())
        );
        assert_eq!(
            (probe["validation"]["rows"].as_u64(), &probe["test"]),
            (Some(12), &Value::Null),
            "{probe}"
        );
    }
    let shown = folder.say(NOBODY, &["show", "job"]).unwrap().out;
    assert!(shown.contains("without rationales: ") && shown.contains("for 1/8 of the rows: "), "{shown}");
}

#[test]
fn a_job_that_cannot_be_probed_is_refused_with_every_mistake() {
    let check = |teacher: &str, training: &str, fields: &[&str]| {
        let spec = SpecText { teacher, training, ..SpecText::default() };
        let folder = Folder::with_problems(ROWS, &spec).unwrap();
        let said = folder.say(NOBODY, &["run", "spec.toml"]).unwrap();
        assert_eq!(said.code, 2, "{teacher}: {}", said.err);
        for field in fields {
            assert!(said.err.contains(field), "{field}: {}", said.err);
        }
    };
    let until = "profile = \"local\"\nuntil = \"no_gain\"";
    let steps = "steps = 4";
    check(&format!("{until}\nrows = 3"), steps, &["teacher.rows"]);
    check("profile = \"local\"\nselect = \"needed\"", steps, &["teacher.select"]);
    check(
        &format!("{until}\nprobe_steps = 5"),
        "steps = 4\nobjective = \"standard\"",
        &["teacher.until", "teacher.probe_steps"],
    );
}
