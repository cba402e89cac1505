//! Faults of a teacher through the whole binary: the job pauses with a reason, resumes, and pays for no answer twice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;
use tests::data::{SpecText, question, teach};
use tests::folder::{Folder, NOBODY, Said};
use tests::teacher::{Reply, Teacher, TeacherRequest};

/// Train rows for rationales, and test rows to measure the teacher.
const ROWS: [usize; 3] = [12, 2, 4];
const PROMPTS: usize = 16;
/// Concurrent calls, as in [`SHORT`].
const CONCURRENCY: usize = 4;
const RUN: &[&str] = &["run", "spec.toml", "--json", "--config", "short.toml"];
/// Retries and timeouts short enough for a test.
const SHORT: &str = "[harvester]\noutage_seconds = 1\nfailures_max = 2\n\
                     [teachers.local]\nconcurrency_max = 4\nattempts_max = 2\nconnect_seconds = 1\nidle_seconds = 1\ntotal_seconds = 5\n";

fn new_job(spec: &SpecText<'_>) -> Folder {
    let job = Folder::with_problems(ROWS, spec).unwrap();
    job.write("short.toml", SHORT).unwrap();
    job
}

fn run(job: &Folder, teacher_url: &str) -> (Said, Value) {
    let said = job.say(teacher_url, RUN).unwrap();
    let outcome = said.json().unwrap();
    (said, outcome)
}

fn good_teacher() -> Teacher {
    Teacher::start(|asked| teach(&asked.prompt)).unwrap()
}

/// Answers correctly, except for the prompts that are to fail.
fn fails_on(fails: impl Fn(&TeacherRequest) -> Option<Reply> + Send + Sync + 'static) -> Teacher {
    Teacher::start(move |asked| fails(asked).unwrap_or_else(|| teach(&asked.prompt))).unwrap()
}

/// The number of completions of each prompt, by question.
fn times(teacher: &Teacher) -> HashMap<String, usize> {
    teacher.counts().into_iter().map(|(prompt, count)| (question(&prompt).to_owned(), count)).collect()
}

/// The box in a question, which identifies the row.
fn box_of(asked: &TeacherRequest) -> usize {
    let words: Vec<&str> = question(&asked.prompt).split(' ').collect();
    let after = words.iter().position(|word| *word == "box").unwrap() + 1;
    words[after].parse().unwrap()
}

/// Checks that the job pauses with `words` and the profile in its reason, and resumes when the teacher has recovered.
fn check_pause(teacher: &Teacher, url: &str, words: &[&str]) {
    let job = new_job(&SpecText::default());
    let (said, outcome) = run(&job, url);
    assert_eq!((said.code, &outcome["state"]), (1, &"paused".into()), "{outcome} {}", said.err);
    let reason = outcome["reason"].as_str().unwrap();
    for word in words.iter().chain(&["teacher `local`", url]) {
        assert!(reason.contains(word), "wanted {word:?} in {reason:?}");
    }
    assert!(said.err.contains(&format!("the distillation is paused: {reason}")), "{}", said.err);
    assert_eq!(outcome["model_dir"], Value::Null);
    let before = times(teacher);

    let well = good_teacher();
    let (said, outcome) = run(&job, well.url());
    assert_eq!((said.code, &outcome["state"]), (0, &"succeeded".into()), "{}", said.err);
    assert!(said.err.contains("resuming paused job (teacher `local`"), "{}", said.err);
    assert!(!said.err.contains("\npaused: "), "what is over is told again: {}", said.err);
    let again = times(&well);
    assert!(again.values().all(|count| *count == 1), "{again:?}");
    let answered = outcome["teacher"]["tokens_out"].as_u64().unwrap() / 20;
    assert_eq!(answered as usize, PROMPTS, "{outcome}; asked before: {before:?}");
}

#[test]
fn a_teacher_that_is_not_there_pauses_the_job_and_it_goes_on_when_it_is() {
    let nobody = good_teacher();
    check_pause(
        &nobody,
        NOBODY,
        &["cannot be reached: check that it runs and that the profile's url is right"],
    );
    assert_eq!(nobody.requests(), 0);
}

#[test]
fn what_only_a_person_can_mend_pauses_the_job_at_once() {
    let check = |status: u16, body: &'static str, words: &[&str]| {
        let teacher = Teacher::start(move |_| Reply::status(status, body)).unwrap();
        check_pause(&teacher, teacher.url(), words);
        // It is not retried: only calls that were in flight.
        assert!(teacher.requests() <= 2 * CONCURRENCY, "{status}: {} requests", teacher.requests());
    };
    check(401, "{\"error\": \"no such key\"}", &["rejects the key", "(401)", "api_key_env", "no such key"]);
    check(403, "", &["rejects the key", "(403)"]);
    check(404, "no such model", &["has no such address or model (404)", "no such model"]);
    check(
        429,
        "{\"code\": \"insufficient_quota\"}",
        &["reports an exhausted quota", "raise the quota, then resume"],
    );
}

#[test]
fn a_teacher_that_fails_for_good_pauses_the_job() {
    let check = |reply: Reply, words: &[&str]| {
        let teacher = Teacher::start(move |_| reply.clone()).unwrap();
        check_pause(&teacher, teacher.url(), words);
    };
    check(Reply::status(500, "<h1>Oh no</h1>"), &["answered 500: `<h1>Oh no</h1>`"]);
    check(
        Reply::completion("It is cut.").broken_off(),
        &["closed the connection before its answer was complete"],
    );
    check(Reply::silence(), &["timed out (idle 1s, total 5s)"]);
}

/// Checks that the job succeeds with all rationales if every prompt fails once in this way, and how many calls and answers
/// that counts as.
fn check_transient(first: Reply, calls: usize) {
    let fails = move |asked: &TeacherRequest| (asked.asked_before == 0).then(|| first.clone());
    check_transient_by(fails, 2 * PROMPTS, calls);
}

fn check_transient_by(
    fails: impl Fn(&TeacherRequest) -> Option<Reply> + Send + Sync + 'static,
    requests: usize,
    calls: usize,
) {
    let job = new_job(&SpecText::default());
    let teacher = fails_on(fails);
    let (said, outcome) = run(&job, teacher.url());
    assert_eq!((said.code, &outcome["state"]), (0, &"succeeded".into()), "{}", said.err);
    assert_eq!(teacher.requests(), requests);
    let wanted = serde_json::json!([calls, 0, 0]);
    let counts = ["prompts", "parked", "skipped"].map(|name| outcome["teacher"][name].clone());
    assert_eq!(Value::from(counts.to_vec()), wanted, "{outcome}");
}

#[test]
fn a_fault_that_goes_away_costs_nothing_but_time() {
    // A call that the server takes is a call, whatever comes of it.
    check_transient(Reply::status(500, "busy"), 2 * PROMPTS);
    check_transient(Reply::status(503, "busy").header("retry-after", "0"), 2 * PROMPTS);
    check_transient(Reply::status(200, "<html>a proxy's page</html>"), 2 * PROMPTS);
    check_transient(Reply::status(200, "{\"choices\": [{\"te"), 2 * PROMPTS);
    check_transient(Reply::completion(""), 2 * PROMPTS);
    // One that breaks off may have been paid for: it is in doubt, and counted apart.
    check_transient(Reply::completion("It is cut.").broken_off(), PROMPTS);
    // A refusal is no call.
    let refused = |asked: &TeacherRequest| {
        (asked.before < CONCURRENCY).then(|| Reply::status(429, "slow down").header("retry-after", "1"))
    };
    check_transient_by(refused, PROMPTS + CONCURRENCY, PROMPTS);
}

#[test]
fn a_prompt_that_always_fails_is_parked_and_the_others_go_on() {
    for (reply, words) in [
        (Reply::status(200, "<html>a proxy's page</html>"), "that is not JSON"),
        (Reply::status(200, "{\"choices\": [{\"te"), "that is not JSON"),
        (Reply::status(200, "{}"), "sent an answer without `choices`"),
        (Reply::completion(""), "sent an answer without text"),
        (Reply::status(400, "too long"), "refuses the prompt (400): `too long`"),
    ] {
        let job = new_job(&SpecText::default());
        let teacher = fails_on(move |asked| matches!(box_of(asked), 7 | 9).then(|| reply.clone()));
        let (said, outcome) = run(&job, teacher.url());
        assert_eq!((said.code, &outcome["state"]), (0, &"succeeded".into()), "{words}: {}", said.err);
        // Twice each, as `failures_max` allows, and every other prompt once; a request that is wrong is not repeated.
        let refused = words.contains("(400)");
        assert_eq!(teacher.requests(), if refused { PROMPTS } else { PROMPTS + 2 }, "{words}");
        assert_eq!(outcome["teacher"]["parked"], 2, "{words}: {outcome}");
        let calls = if refused { PROMPTS - 2 } else { PROMPTS + 2 };
        assert_eq!(outcome["teacher"]["prompts"], calls, "{words}: {outcome}");
        let told = format!("parked 2 prompts, the first of them row 7: teacher `local` at {}", teacher.url());
        assert!(said.err.contains(&told) && said.err.contains(words), "{words}: {}", said.err);
        let plain = job.say(teacher.url(), &["run", "spec.toml", "--config", "short.toml"]).unwrap();
        assert!(plain.out.contains("(0 from the store), parked 2, rationales"), "{}", plain.out);
    }
}

#[test]
fn where_every_prompt_is_parked_the_job_pauses_and_says_why() {
    let job = new_job(&SpecText::default());
    let teacher = Teacher::start(|_| Reply::completion("")).unwrap();
    let (said, outcome) = run(&job, teacher.url());
    assert_eq!((said.code, &outcome["state"]), (1, &"paused".into()), "{}", said.err);
    let reason = outcome["reason"].as_str().unwrap();
    for words in ["no rationale was accepted of 16 prompts", "parked 16", "sent an answer without text"] {
        assert!(reason.contains(words), "{reason}");
    }
    // Parked prompts are retried when the job is run again.
    let well = good_teacher();
    let (said, outcome) = run(&job, well.url());
    assert_eq!((said.code, well.requests()), (0, PROMPTS), "{}", said.err);
    assert_eq!(outcome["teacher"]["parked"], 0, "{outcome}");
}

#[test]
fn an_outage_in_the_middle_pays_for_no_answer_twice() {
    const ANSWERED: usize = 7;
    let job = new_job(&SpecText::default());
    let teacher = Teacher::start(|asked| {
        if asked.before < ANSWERED { teach(&asked.prompt) } else { Reply::status(500, "gone") }
    })
    .unwrap();
    let (said, outcome) = run(&job, teacher.url());
    assert_eq!((said.code, &outcome["state"]), (1, &"paused".into()), "{}", said.err);
    assert_eq!(outcome["teacher"]["tokens_in"], 100 * ANSWERED, "{outcome}");
    let well = good_teacher();
    let (said, outcome) = run(&job, well.url());
    assert_eq!((said.code, well.requests()), (0, PROMPTS - ANSWERED), "{}", said.err);
    assert_eq!(outcome["teacher"]["tokens_in"], 100 * PROMPTS, "{outcome}");
}

#[test]
fn a_wait_that_the_teacher_asks_for_is_kept() {
    let job = new_job(&SpecText::default());
    let wait = Duration::from_secs(2);
    let moments = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = std::sync::Arc::clone(&moments);
    let teacher = fails_on(move |asked| {
        noted.lock().unwrap().push(std::time::Instant::now());
        (asked.before == 0).then(|| Reply::status(429, "slow down").header("retry-after", "2"))
    });
    let (said, _) = run(&job, teacher.url());
    assert_eq!(said.code, 0, "{}", said.err);
    let moments = moments.lock().unwrap();
    // The first call is asked to wait. Calls in flight at that time may still arrive, but no other before the wait is over.
    let since = |moment: &std::time::Instant| moment.duration_since(moments[0]);
    let early = moments.iter().filter(|moment| since(moment) > wait / 4 && since(moment) < wait).count();
    let hurried = moments.iter().filter(|moment| since(moment) <= wait / 4).count();
    assert!(hurried <= 2 * CONCURRENCY, "{hurried} calls were on their way");
    assert_eq!(early, 0, "calls came before the teacher wanted to be asked again");
}
