//! The database as a dashboard reads it: with a role that may read the views only.

use super::dashboards::root;
use serde_json::Value;
use sqlx::{Connection, PgConnection, Row};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tests::folder::Folder;
use tests::postgres::Postgres;

const PASSWORD: &str = "a-password-of-the-tests";

/// A connection of the role `grafana`.
pub(crate) struct ReadOnlyConnection {
    connection: PgConnection,
    runtime: tokio::runtime::Runtime,
}

impl ReadOnlyConnection {
    /// Creates the role in a migrated database, as an operator does, and connects with it.
    pub(crate) fn new(postgres: &Postgres) -> Self {
        // Twice: the script can be repeated.
        for _ in 0..2 {
            let mut psql = Command::new("psql");
            psql.arg(postgres.url()).args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1"]);
            psql.args(["--set", &format!("password={PASSWORD}"), "--file"]);
            let said = psql.arg(reader_script()).stdin(Stdio::null()).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        }
        let (_, place) = postgres.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let url = format!("postgres://grafana:{PASSWORD}@{place}");
        let connection = runtime.block_on(PgConnection::connect(&url)).unwrap();
        Self { connection, runtime }
    }

    /// A migrated database, with a connection of the role.
    pub(crate) fn of_an_empty_database() -> (Postgres, Self) {
        let (postgres, folder) = (Postgres::start().unwrap(), Folder::empty().unwrap());
        folder.write("cluster.toml", format!("[database]\nurl = \"{}\"\n", postgres.url())).unwrap();
        let said = folder.say("", &["migrate", "--config", "cluster.toml"]).unwrap();
        assert_eq!(said.code, 0, "{}", said.err);
        let reader = Self::new(&postgres);
        (postgres, reader)
    }

    /// The rows of a query, and its duration.
    pub(crate) fn ask(&mut self, sql: &str) -> Result<(Vec<Value>, Duration), sqlx::Error> {
        let rows_as_json = format!("SELECT to_jsonb(asked) AS row FROM ({sql}) AS asked");
        let began = Instant::now();
        let query = sqlx::query(sqlx::AssertSqlSafe(rows_as_json));
        let rows = self.runtime.block_on(query.fetch_all(&mut self.connection))?;
        let rows = rows.iter().map(|row| row.try_get("row")).collect::<Result<_, _>>()?;
        Ok((rows, began.elapsed()))
    }
}

fn reader_script() -> PathBuf {
    root().join("deploy/grafana/reader.sql")
}
