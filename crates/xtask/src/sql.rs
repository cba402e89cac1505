//! `cargo xtask sql [--check]`: the metadata of each adapter's SQL statements, checked in as `.sqlx`, so that builds need no
//! database. sqlx's macros write it themselves if they are given a database and a folder.

use anyhow::{Context, bail};
use sqlx::migrate::{Migrate, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A crate with checked statements.
struct Adapter {
    /// Its name, and its folder's in `crates/`.
    package: &'static str,
    /// The `database-url-var` of its `sqlx.toml`; the crate names it in an `option_env!`, so that cargo checks it again.
    url_variable: &'static str,
    /// Creates a database with all migrations. Arguments: the repository's root, and an empty folder for a database in files.
    database: fn(&Path, &Path) -> anyhow::Result<Database>,
}

/// A database with migrations; it is removed when dropped.
struct Database {
    url: String,
    _server: Option<PostgresServer>,
}

/// A server that stops when its standard input ends.
struct PostgresServer(Child);

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends by itself, so a failure to wait needs no handling.
        let _ = self.0.wait();
    }
}

impl Adapter {
    /// Where sqlx looks for its metadata.
    fn folder(&self, root: &Path) -> PathBuf {
        root.join("crates").join(self.package).join(".sqlx")
    }
}

const ADAPTERS: [Adapter; 2] = [
    Adapter { package: "embedded", url_variable: "DISTILLERY_SQLITE_URL", database: sqlite },
    Adapter { package: "distributed", url_variable: "DISTILLERY_SQLX_POSTGRES_URL", database: postgres },
];

/// The files of a folder by name.
type Files = BTreeMap<String, Vec<u8>>;

/// Writes the metadata of every adapter, or checks that it is what the statements and the migrations say.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let check = match arguments.next().as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("sql takes --check or nothing, not `{other}`"),
    };
    let root = crate::repository::root()?;
    for adapter in &ADAPTERS {
        let described = describe(&root, adapter)?;
        if check {
            check_fresh(&described, &adapter.folder(&root))?;
        } else {
            write(&described, &adapter.folder(&root))?;
        }
    }
    Ok(())
}

fn check_fresh(described: &Files, out: &Path) -> anyhow::Result<()> {
    let stale = stale(described, &read(out)?);
    if !stale.is_empty() {
        let (out, count) = (out.display(), stale.len());
        bail!("{out} is stale in {count} files: run `cargo xtask sql` and commit what it writes");
    }
    Ok(())
}

/// Writes changed files, and removes files that no statement needs.
fn write(described: &Files, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out)?;
    for name in stale(described, &read(out)?) {
        let path = out.join(&name);
        match described.get(&name) {
            Some(bytes) => fs::write(&path, bytes),
            None => fs::remove_file(&path),
        }
        .with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The names of missing, changed and superfluous files.
fn stale(described: &Files, present: &Files) -> BTreeSet<String> {
    let names = described.keys().chain(present.keys());
    names.filter(|name| described.get(*name) != present.get(*name)).cloned().collect()
}

/// The metadata of an adapter's statements, from a fresh database.
fn describe(root: &Path, adapter: &Adapter) -> anyhow::Result<Files> {
    let folder = tempfile::tempdir()?;
    let database = (adapter.database)(root, folder.path())?;
    let out = folder.path().join("described");
    fs::create_dir(&out)?;
    let status = Command::new("cargo")
        .args(["check", "--quiet", "--lib", "--package", adapter.package])
        .current_dir(root)
        .env(adapter.url_variable, &database.url)
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", &out)
        .status()
        .context("cargo check did not start")?;
    if !status.success() {
        bail!("{} does not compile against its migrations: see above", adapter.package);
    }
    let described = read(&out)?;
    if described.is_empty() {
        bail!(
            "no statement of {} was described: is {} the database-url-var of its sqlx.toml, and in an option_env! of it?",
            adapter.package,
            adapter.url_variable
        );
    }
    Ok(described)
}

/// A new SQLite database with the migrations of `migrations/sqlite`.
fn sqlite(root: &Path, folder: &Path) -> anyhow::Result<Database> {
    let options = SqliteConnectOptions::new().filename(folder.join("statements.db")).create_if_missing(true);
    migrate(&options, &root.join("migrations/sqlite"))?;
    Ok(Database { url: options.to_url_lossy().into(), _server: None })
}

/// A database of a private PostgreSQL, as the tests use it, with the migrations of `migrations/postgres`.
fn postgres(root: &Path, _folder: &Path) -> anyhow::Result<Database> {
    let mut child = Command::new("cargo")
        .args(["run", "--quiet", "--package", "tests", "--example", "postgres"])
        .current_dir(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo run did not start")?;
    let output = child.stdout.take();
    let server = PostgresServer(child);
    let mut url = String::new();
    BufReader::new(output.context("the server has no output")?).read_line(&mut url)?;
    let url = url.trim().to_owned();
    if url.is_empty() {
        bail!("no PostgreSQL was started: see above; scripts/services.sh installs it");
    }
    migrate(&url.parse::<PgConnectOptions>()?, &root.join("migrations/postgres"))?;
    Ok(Database { url, _server: Some(server) })
}

fn migrate<O>(options: &O, migrations: &Path) -> anyhow::Result<()>
where
    O: ConnectOptions,
    O::Connection: Migrate + Sized,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connection = options.connect().await?;
        Migrator::new(migrations)
            .await?
            .run_direct(None, &mut connection, false)
            .await
            .with_context(|| migrations.display().to_string())?;
        connection.close().await?;
        Ok(())
    })
}

/// The files of a folder; none if there is no folder.
fn read(folder: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_is_what_the_databases_say() {
        let root = crate::repository::root().unwrap();
        for adapter in &ADAPTERS {
            check_fresh(&describe(&root, adapter).unwrap(), &adapter.folder(&root)).unwrap();
        }
    }

    #[test]
    fn stale_metadata_is_noticed_and_written_anew() {
        let files = |files: &[(&str, &str)]| -> Files {
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
        };
        let check = |present: &[(&str, &str)], described: &[(&str, &str)], count: usize| {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join(".sqlx");
            write(&files(present), &out).unwrap();
            let described = files(described);
            let error = check_fresh(&described, &out).unwrap_err().to_string();
            assert!(error.contains(&format!("is stale in {count} files: run `cargo xtask sql`")), "{error}");
            write(&described, &out).unwrap();
            check_fresh(&described, &out).unwrap();
            assert_eq!(read(&out).unwrap(), described);
        };
        check(&[], &[("a", "1")], 1);
        check(&[("a", "1")], &[("a", "2")], 1);
        check(&[("a", "1"), ("b", "1")], &[("a", "1")], 1);
        check(&[("a", "1"), ("b", "1"), ("c", "1")], &[("a", "2"), ("b", "1"), ("d", "1")], 3);
    }
}
