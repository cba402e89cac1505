//! What stands on the page of jobs. Every text from outside passes [`html`]; times are those of the records, so that the same records
//! are the same page.

use super::calls::Found;
use crate::pages::{Curves, grouped, html, percent};
use domain::Timestamp;
use domain::budget::Amount;
use domain::metric::Accuracy;
use domain::records::{Distillation, HarvestProgress, Run};
use domain::state::{DistillationState, PromptState, Reason, RunState, Verdict};
use std::fmt::Write;
use wire::rfc3339;

/// A job, and the run that trains its student, where there is one.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) found: Found,
    pub(super) run: Option<Run>,
}

/// How far a job is: words, and the share where it is known.
fn progress(job: &Job) -> (String, Option<f64>) {
    let Found { job: record, harvest, .. } = &job.found;
    match record.state {
        DistillationState::Queued => ("waits for its turn".to_owned(), None),
        DistillationState::Harvesting => {
            let (done, all) = (harvest.done(), harvest.total_expected());
            let obstacle = if harvest.obstacle.is_empty() { "" } else { ": the teacher does not answer" };
            (format!("{} of {} prompts{obstacle}", grouped(done), grouped(all)), share(done, all))
        }
        DistillationState::Training => match &job.run {
            Some(run) if run.state == RunState::Pending => ("no trainer is at it".to_owned(), None),
            Some(run) => {
                let all = u64::from(run.plan.training.steps);
                (format!("step {} of at most {}", grouped(run.step), grouped(all)), share(run.step, all))
            }
            None => ("begins to train".to_owned(), None),
        },
        DistillationState::Evaluating => ("measures the student".to_owned(), None),
        DistillationState::Succeeded => match test(job) {
            Some(test) => (format!("student: {} right", percent(test.value())), None),
            None => ("student is published".to_owned(), None),
        },
        DistillationState::Paused | DistillationState::Failed | DistillationState::Cancelled => {
            (record.reason.clone(), None)
        }
    }
}

fn share(done: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| (done as f64 / all as f64).clamp(0.0, 1.0))
}

fn test(job: &Job) -> Option<Accuracy> {
    job.run.as_ref()?.result.as_ref()?.test
}

fn progress_html(job: &Job) -> String {
    let (words, share) = progress(job);
    let bar = share.map_or_else(String::new, |share| {
        let name = html(&job.found.job.spec.name);
        format!("<progress max=\"1\" value=\"{share:.3}\" aria-label=\"Progress of {name}\"></progress> ")
    });
    format!("{bar}{}", html(&words))
}

/// What was spent: money where there are prices, else calls.
fn spent(harvest: &HarvestProgress) -> String {
    match (harvest.money_micros, harvest.calls) {
        (0, 1) => "1 call".to_owned(),
        (0, calls) => format!("{} calls", grouped(calls)),
        (micros, _) => money(micros),
    }
}

/// Characters of a moment as it is written, to its minute and to its second.
const MINUTES: usize = 16;
const SECONDS: usize = 19;

/// A moment as people read it, as exactly as `characters` say.
fn moment(at: Timestamp, characters: usize) -> String {
    let whole = rfc3339(at);
    format!("{} UTC", whole.get(..characters).unwrap_or(&whole).replacen('T', " ", 1))
}

/// The same as an element that says it whole.
fn time(at: Timestamp, characters: usize) -> String {
    format!("<time datetime=\"{}\">{}</time>", rfc3339(at), moment(at, characters))
}

fn money(micros: u64) -> String {
    format!("{:.4}", micros as f64 / 1e6)
}

/// A page of the list; `next` names the page after it, `is_first` says that none is before it.
pub(super) fn list(jobs: &[Job], next: &str, is_first: bool) -> String {
    let mut page = String::from("<h1>Jobs</h1>\n");
    if jobs.is_empty() {
        page.push_str("<p>There is no job yet: <code>distillery submit spec.toml</code> makes one.</p>\n");
        return document("Jobs", "", &page);
    }
    page.push_str(
        "<table id=\"jobs\"><thead><tr><th scope=\"col\">Job</th><th scope=\"col\">State</th><th scope=\"col\">Progress</th>\
         <th scope=\"col\">Spent</th></tr></thead><tbody>\n",
    );
    for job in jobs {
        let record = &job.found.job;
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\"><a id=\"job-{id}\" href=\"/jobs/{id}\">{}</a><small>{}</small></th><td>{}</td><td>{}</td>\
             <td>{}</td></tr>",
            html(&record.spec.name),
            time(record.created_at, MINUTES),
            record.state,
            progress_html(job),
            spent(&job.found.harvest),
            id = record.id,
        );
    }
    page.push_str("</tbody></table>\n<nav aria-label=\"Pages of the list\">");
    if !is_first {
        page.push_str("<a id=\"first\" href=\"/\">Newest jobs</a> ");
    }
    if !next.is_empty() {
        let _ = write!(page, "<a id=\"next\" href=\"/?page={}\">Older jobs</a>", html(&escaped(next)));
    }
    page.push_str("</nav>\n");
    document("Jobs", "", &page)
}

/// A text as a part of a URL.
fn escaped(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

/// One job; `has_report` where `distillery run` wrote a page of what its student learnt.
pub(super) fn one(job: &Job, curves: &Curves, has_report: bool) -> String {
    let Found { job: record, harvest, .. } = &job.found;
    let mut page = String::new();
    let name = html(&record.spec.name);
    let _ = writeln!(
        page,
        "<h1>{name}</h1>\n<p class=\"lead\"><span class=\"state\">{}</span></p>",
        record.state
    );
    let _ = writeln!(page, "<p>{}</p>", progress_html(job));
    if has_report {
        let _ = writeln!(
            page,
            "<p><a id=\"report\" href=\"/reports/{}\">What the student learnt: the report of the newest job of this name</a></p>",
            record.id
        );
    }
    facts(&mut page, job);
    funnel(&mut page, harvest);
    spend(&mut page, record, harvest);
    if !(curves.label.is_empty() && curves.rationale.is_empty() && curves.validation.is_empty()) {
        page.push_str("<h2>How it learns</h2>\n");
        curves.draw(&mut page);
    }
    document(&record.spec.name, &format!("{}: {}", record.spec.name, record.state), &page)
}

fn facts(page: &mut String, job: &Job) {
    let Found { job: record, dataset, .. } = &job.found;
    let dataset = dataset.as_ref().map_or_else(
        || "deleted".to_owned(),
        |dataset| format!("{}, {} rows", dataset.name, grouped(dataset.rows)),
    );
    let measured = |accuracy: Accuracy| {
        format!("{} right of {} test rows", percent(accuracy.value()), grouped(accuracy.rows))
    };
    let facts = [
        ("id", Some(record.id.to_string())),
        ("submitted", Some(moment(record.created_at, SECONDS))),
        ("changed", Some(moment(record.updated_at, SECONDS))),
        ("dataset", Some(dataset)),
        ("teacher", record.teacher_accuracy.map(measured)),
        ("student", test(job).map(measured)),
    ];
    page.push_str("<dl>");
    for (name, value) in facts.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", html(&value));
    }
    page.push_str("</dl>\n");
}

/// A table of names and numbers.
fn numbers(page: &mut String, title: &str, of: &str, rows: &[(String, String)]) {
    let _ = write!(
        page,
        "<h2>{title}</h2>\n<table class=\"numbers\"><thead><tr><td></td><th scope=\"col\">{of}</th></tr></thead><tbody>\n"
    );
    for (name, number) in rows {
        let _ = writeln!(page, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", html(name), html(number));
    }
    page.push_str("</tbody></table>\n");
}

/// From prompts to rationales that train the student.
fn funnel(page: &mut String, harvest: &HarvestProgress) {
    let mut rows = vec![("prompts".to_owned(), grouped(harvest.total_expected()))];
    for state in [PromptState::Answered, PromptState::Parked, PromptState::Skipped] {
        rows.push((state.to_string(), grouped(harvest.in_state(state))));
    }
    for verdict in [Verdict::Accepted, Verdict::Rejected] {
        rows.push((format!("rationales {verdict}"), grouped(harvest.with_verdict(verdict))));
    }
    for (reason, count) in Reason::ALL.iter().zip(harvest.reasons).filter(|(_, count)| *count > 0) {
        rows.push((format!("rejected: {reason}"), grouped(count)));
    }
    numbers(page, "What becomes of the prompts", "so far", &rows);
}

fn spend(page: &mut String, record: &Distillation, harvest: &HarvestProgress) {
    let Amount { calls, tokens, money_micros } = harvest.in_doubt;
    let budget = record.spec.teacher.as_ref().map(|teacher| teacher.budget).unwrap_or_default();
    let of = |spent: String, limit: Option<String>| match limit {
        Some(limit) => format!("{spent} of {limit}"),
        None => spent,
    };
    let mut rows = vec![
        ("calls".to_owned(), of(grouped(harvest.calls), budget.prompts.map(grouped))),
        ("answers from the store".to_owned(), grouped(harvest.cache_hits)),
        (
            "tokens in and out".to_owned(),
            of(grouped(harvest.tokens_in.saturating_add(harvest.tokens_out)), budget.tokens.map(grouped)),
        ),
        ("money".to_owned(), of(money(harvest.money_micros), budget.money_micros.map(money))),
    ];
    if calls > 0 {
        let words =
            format!("{} calls, at most {} tokens, {}", grouped(calls), grouped(tokens), money(money_micros));
        rows.push(("in doubt".to_owned(), words));
    }
    if record.state == DistillationState::Harvesting
        && let Some(projected) = harvest.projected()
    {
        rows.push(("money, if the rest costs as much".to_owned(), money(projected.money_micros)));
    }
    numbers(page, "What it costs", "so far", &rows);
}

/// A whole page; `state` is told to who does not see it when it changes.
fn document(title: &str, state: &str, body: &str) -> String {
    let (title, state) = (html(title), html(state));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title} - Distillery</title>\
         <link rel=\"icon\" href=\"data:,\"><link rel=\"stylesheet\" href=\"/jobs.css\">\
         <script src=\"/jobs.js\" defer></script></head>\n\
         <body><a class=\"skip\" href=\"#main\">To the content</a>\n\
         <header><a href=\"/\">Distillery: all jobs</a><p class=\"soft\" id=\"said\" role=\"status\"></p>\
         <button id=\"live\" type=\"button\" hidden>Stop updating</button></header>\n\
         <main id=\"main\" data-state=\"{state}\">\n{body}</main></body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_a_page_is_one_part_of_a_url() {
        assert_eq!(escaped("a-Z_0.9~"), "a-Z_0.9~");
        assert_eq!(escaped("a b&c=\"d\"/\u{e9}"), "a%20b%26c%3D%22d%22%2F%C3%A9");
    }

    #[test]
    fn texts_from_outside_are_no_markup() {
        let page = document("<b>&", "\"><script>", "");
        assert!(page.contains("&lt;b&gt;&amp;") && page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
        assert_eq!(page.matches("<script").count(), 1, "{page}");
    }

    #[test]
    fn shares_stay_between_nothing_and_all() {
        assert_eq!(share(1, 0), None);
        assert_eq!(share(3, 4), Some(0.75));
        assert_eq!(share(5, 4), Some(1.0));
    }
}
