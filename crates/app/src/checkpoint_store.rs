//! Where checkpoints are: the folder or bucket that the configuration names.

use crate::config::{Config, ConfigError};
use crate::{data_folder, secret};
use anyhow::Context;
use checkpoints::{Checkpoints, S3Settings};
use std::path::{Path, PathBuf};

/// What the address of a bucket begins with.
pub(crate) const BUCKET: &str = "s3://";

/// Whether other processes write to the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writers {
    /// None: the data folder's lock says so.
    #[cfg_attr(
        not(feature = "harvester"),
        allow(dead_code, reason = "only records on this machine have a lock")
    )]
    Alone,
    /// Services that run apart.
    Many,
}

/// The folder of a checkpoint, every file as its manifest says. Off the runtime: a bucket's is copied, which blocks.
///
/// # Errors
/// It is absent or damaged.
pub(crate) async fn fetch(
    checkpoints: Checkpoints,
    path: &str,
    manifest_sha256: &str,
) -> anyhow::Result<PathBuf> {
    let (path, manifest) = (path.to_owned(), manifest_sha256.to_owned());
    Ok(tokio::task::spawn_blocking(move || checkpoints.fetch(&path, Some(&manifest))).await??)
}

/// What `[checkpoints] root` names, else the folder of this machine.
pub(crate) fn root(config: &Config) -> PathBuf {
    match config.checkpoints.root.as_str() {
        "" => config.data_dir.join("checkpoints"),
        root => root.into(),
    }
}

/// Opens the store of checkpoints. To be called on a runtime, which carries a bucket's transfers.
///
/// # Errors
/// `[checkpoints]` names no place that can be written to: a [`ConfigError`], or the folder's own.
pub(crate) fn open(config: &Config, writers: Writers) -> anyhow::Result<Checkpoints> {
    let section = &config.checkpoints;
    let cache = config.data_dir.join("checkpoints");
    if section.root.is_empty() || section.root.starts_with(BUCKET) {
        data_folder::make(&config.data_dir)?;
    }
    if let Some(place) = section.root.strip_prefix(BUCKET) {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            let words = format!("`{}` names no bucket: write s3://bucket/prefix", section.root);
            return Err(ConfigError::new("checkpoints.root", words).into());
        }
        let none = Path::new("");
        let settings = S3Settings {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: section.s3.endpoint.clone(),
            region: section.s3.region.clone(),
            access_key: secret::read(&section.s3.access_key_env, none)?.expose().to_owned(),
            secret_key: secret::read(&section.s3.secret_key_env, none)?.expose().to_owned(),
        };
        return Checkpoints::open_bucket(&settings, &cache).context("checkpoints.root");
    }
    let root = root(config);
    let opened = match writers {
        Writers::Alone => Checkpoints::open(&root),
        Writers::Many => Checkpoints::open_shared(&root),
    };
    opened.context("checkpoints.root")
}
