//! The page of jobs at the admin port: who may read it, in what it is wrapped, and how a real browser shows a job that is being worked
//! at.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::binary;
use tests::cluster::{done, wait_for};
use tests::data::{SpecText, teach};
use tests::folder::{Folder, Said};
use tests::scrape;
use tests::service::Service;
use tests::teacher::{Reply, Teacher};

const LIMIT: Duration = Duration::from_secs(90);
/// Long enough for curves.
const LONG: &str = "steps = 60\nbatch_examples = 8\nevaluate_every_steps = 10\ntarget_tokens_max = 32";
/// What a user may write into a reason.
const HOSTILE: &str = "<img src=x onerror=\"window.owned=1\"><script>window.owned=1</script>";

struct Served {
    service: Service,
    admin: SocketAddr,
    folder: Folder,
    _teacher: Teacher,
}

impl Served {
    /// A server over a folder in which a job was run already, so that it has a report, and whose teacher is now this one.
    fn after_a_run(rows: [usize; 3], teacher: Teacher, settings: &[(&str, &str)]) -> Self {
        let spec = SpecText { training: LONG, ..SpecText::default() };
        let folder = Folder::with_problems(rows, &spec).unwrap();
        let quick = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
        done(folder.say(quick.url(), &["run", "spec.toml"]).unwrap());
        Self::start(folder, "all", teacher, settings)
    }

    fn start(folder: Folder, roles: &str, teacher: Teacher, settings: &[(&str, &str)]) -> Self {
        let admin = scrape::free_address().unwrap();
        let address = admin.to_string();
        let mut all =
            vec![("DISTILLERY_TEACHER_URL", teacher.url()), ("DISTILLERY_ADMIN_LISTEN", address.as_str())];
        all.extend(settings);
        let service = Service::start(folder.path(), roles, &all).unwrap();
        Self { service, admin, folder, _teacher: teacher }
    }

    fn say(&self, arguments: &[&str]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", self.service.url());
        binary::output(command).unwrap().into()
    }

    /// Submits a specification; returns the job's id.
    fn submit(&self, arguments: &[&str]) -> String {
        let said = done(self.say(&[&["submit", "--json"], arguments].concat())).json().unwrap();
        said["distillation"].as_str().unwrap().to_owned()
    }

    /// The head and the body of a page that is asked for as `host`.
    fn get(&self, host: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    fn page(&self, path: &str) -> String {
        let (head, body) = self.get("localhost", path);
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}\n{body}");
        body
    }

    fn check_refused(&self, host: &str, path: &str, wanted: &str, words: &str) {
        let (head, body) = self.get(host, path);
        assert!(head.starts_with(&format!("HTTP/1.1 {wanted} ")), "{host} {path}: {head}");
        assert!(body.contains(words), "{host} {path}: {body}");
    }
}

#[test]
fn the_page_of_jobs_is_read_on_this_machine_only() {
    // No job is over before it is cancelled, and what is asked is answered before the server ends.
    let slow = Teacher::start(|asked| teach(&asked.prompt).after(Duration::from_secs(3))).unwrap();
    let served = Served::after_a_run([24, 6, 6], slow, &[]);
    let jobs = done(served.say(&["list", "--json"])).json().unwrap();
    let first = jobs["distillations"][0]["distillation"].as_str().unwrap().to_owned();
    let (head, list) = served.get(&served.admin.to_string(), "/");
    let head = head.to_ascii_lowercase();
    for wanted in [
        "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(wanted), "{wanted} is not in {head}");
    }
    assert!(!head.contains("access-control"), "{head}");
    assert!(
        list.contains(&format!("href=\"/jobs/{first}\">job</a>")) && list.contains("succeeded"),
        "{list}"
    );
    // Another site's name for this machine reads nothing.
    for path in ["/", &format!("/jobs/{first}"), &format!("/reports/{first}"), "/jobs.js"] {
        served.check_refused("evil.example", path, "403", "admin.jobs");
    }
    let page = served.page(&format!("/jobs/{first}"));
    for wanted in [
        "rationales accepted",
        "rejected: disagrees",
        "tokens in and out",
        "accuracy on validation rows, by step",
        "<polyline",
        "right of 6 test rows",
    ] {
        assert!(page.contains(wanted), "{wanted} is not in {page}");
    }
    // Its report is the file that the run wrote, which runs nothing here.
    assert!(page.contains(&format!("href=\"/reports/{first}\"")), "{page}");
    let (head, report) = served.get("localhost", &format!("/reports/{first}"));
    assert!(head.contains("content-security-policy: sandbox; default-src 'none'"), "{head}");
    let written = std::fs::read_to_string(served.folder.join(".distillery/reports/job.html")).unwrap();
    assert_eq!(report, written);
    served.check_refused("localhost", "/jobs/018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11", "404", "");
    served.check_refused("localhost", "/jobs/other", "404", "there are /, /metrics");
    served.check_refused("localhost", "/?page=nonsense", "400", "page");
    served.check_refused("localhost", "/reports/../../spec.toml", "404", "");
    check_pages(&served);
    assert_eq!(served.service.stop(LIMIT).unwrap(), 0);
}

/// More jobs than one page has: each is on one page, and a hostile reason is a text.
fn check_pages(served: &Served) {
    let other = "profile = \"local\"\ntemperature = 0.5";
    let spec = SpecText { teacher: other, ..SpecText::default() };
    served.folder.write("other.toml", spec.to_string()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..22 {
        let id = served.submit(&["other.toml", "--again"]);
        done(served.say(&["cancel", &id, "--reason", HOSTILE]));
        ids.push(id);
    }
    let newest = served.page("/");
    assert_eq!(newest.matches("<tr><th scope=\"row\">").count(), 20, "{newest}");
    assert!(newest.contains("&lt;img src=x onerror=") && !newest.contains("<img"), "{newest}");
    let (_, link) = newest.split_once("id=\"next\" href=\"").unwrap();
    let (link, _) = link.split_once('"').unwrap();
    let older = served.page(link);
    assert_eq!(older.matches("<tr><th scope=\"row\">").count(), 3, "{older}");
    assert!(older.contains("id=\"first\"") && !older.contains("id=\"next\""), "{older}");
    for id in ids {
        assert!(newest.contains(&id) != older.contains(&id), "{id} is on one page");
    }
}

#[test]
fn the_configuration_says_who_reads() {
    let start = |roles: &str, readers: &str| {
        let folder = Folder::with_problems([8, 2, 2], &SpecText::default()).unwrap();
        let teacher = Teacher::start(|_| Reply::silence()).unwrap();
        Served::start(folder, roles, teacher, &[("DISTILLERY_ADMIN_JOBS", readers)])
    };
    let nobody = start("harvester", "nobody");
    nobody.check_refused("localhost", "/", "403", "admin.jobs");
    assert!(nobody.get("localhost", "/metrics").0.starts_with("HTTP/1.1 200 "));
    let everyone = start("harvester", "everyone");
    assert!(everyone.get("any.example", "/").1.contains("There is no job yet"));
    let other = start("inference", "everyone");
    other.check_refused("localhost", "/", "404", "this process has no jobs");
    let folder = Folder::empty().unwrap();
    let mut command = binary::command(folder.path(), &["serve", "--role", "harvester"]).unwrap();
    command.env("DISTILLERY_ADMIN_JOBS", "somebody");
    let said = Said::from(binary::output(command).unwrap());
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(said.err.contains("this-machine"), "{}", said.err);
}

/// The browser; `None` where the machine has none.
fn browser() -> Option<PathBuf> {
    let said = Command::new("sh").args(["-c", "command -v chromium"]).output().unwrap();
    let path = String::from_utf8(said.stdout).unwrap();
    said.status.success().then(|| PathBuf::from(path.trim()))
}

fn installed(script: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(script);
    let said = Command::new(script).stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    PathBuf::from(String::from_utf8(said.stdout).unwrap().trim())
}

/// Where pictures stay that a person wants to see: `DISTILLERY_TEST_PICTURES`, else nowhere.
#[allow(clippy::disallowed_methods, reason = "a person may ask for the pictures")]
fn pictures(folder: &Folder) -> PathBuf {
    std::env::var_os("DISTILLERY_TEST_PICTURES").map_or_else(|| folder.path().to_owned(), PathBuf::from)
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_browser_shows_a_job_that_is_worked_at() {
    let (tools, node) = (installed("browser-tools.sh"), installed("watch-tools.sh").join("bin/node"));
    let Some(chromium) = browser() else {
        eprintln!("SKIPPED: there is no chromium on PATH: the page of jobs was not looked at");
        return;
    };
    // About a minute and a half of asking, and numbers that change all the time.
    let slow = Teacher::start(|asked| teach(&asked.prompt).after(Duration::from_millis(900))).unwrap();
    let served = Served::after_a_run([400, 6, 6], slow, &[("DISTILLERY_HARVESTER_WORKERS", "2")]);
    let jobs = done(served.say(&["list", "--json"])).json().unwrap();
    let first = jobs["distillations"][0]["distillation"].as_str().unwrap().to_owned();
    let other = SpecText {
        name: "live-job",
        teacher: "profile = \"local\"\nsamples = 2\ntemperature = 0.7",
        ..SpecText::default()
    };
    served.folder.write("live.toml", other.to_string()).unwrap();
    let gone = served.submit(&["live.toml"]);
    done(served.say(&["cancel", &gone, "--reason", HOSTILE]));
    let live = served.submit(&["live.toml", "--again"]);
    wait_for("the job is worked at", || {
        served.page(&format!("/jobs/{live}")).contains("<progress").then_some(())
    });
    let mut command = Command::new(node);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("browser/look.mjs"));
    command.args([tools.as_path(), chromium.as_path()]).arg(format!("http://{}", served.admin));
    command.args([&live, &first]).arg(pictures(&served.folder));
    let said = Said::from(binary::output(command).unwrap());
    assert_eq!(said.code, 0, "{}\n{}", said.err, said.out);
    let found: Value = said.json().unwrap();
    assert_eq!(found["checked"], 12, "{found}");
    for none in ["violations", "overflows", "errors", "foreign"] {
        assert_eq!(found[none], serde_json::json!([]), "{none}: {found}");
    }
    let job = format!("job-{live}");
    assert_eq!(
        (found["first"].as_str(), found["focused"].as_str()),
        (Some("skip"), Some(job.as_str())),
        "{found}"
    );
    assert_eq!((&found["stands"], &found["alive"]), (&true.into(), &true.into()), "{found}");
    assert!(found["followed"].as_str().unwrap().ends_with(&format!("/jobs/{live}")), "{found}");
    assert_eq!(found["title"], "live-job - Distillery");
    done(served.say(&["cancel", &live]));
    assert_eq!(served.service.stop(LIMIT).unwrap(), 0);
}
