//! The store in a bucket: S3 or anything that speaks its protocol. Files are uploaded first and the manifest last, so that a
//! folder is there, whole, exactly when its manifest is. What is fetched is kept in a cache on this machine's disk.

use crate::files::replace;
use crate::{CheckpointError, MANIFEST, Manifest};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

/// How long one operation may be tried again.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a bucket is, and who may write to it. The operator's; no job ever carries one.
#[derive(Clone)]
pub struct S3Settings {
    /// The bucket.
    pub bucket: String,
    /// Keys begin with this; empty for none.
    pub prefix: String,
    /// Another server than Amazon's, such as `http://127.0.0.1:9000`; empty for Amazon's.
    pub endpoint: String,
    /// The region.
    pub region: String,
    /// The access key; empty to use the machine's own role.
    pub access_key: String,
    /// The secret key. It is in no message and no log.
    pub secret_key: String,
}

impl fmt::Debug for S3Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("S3Settings")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// A bucket and its cache.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    store: Arc<AmazonS3>,
    prefix: String,
    name: String,
    cache: PathBuf,
    runtime: Handle,
}

impl Bucket {
    /// Must be called on a runtime, which then carries the transfers; the methods must be called off it.
    pub(crate) fn open(settings: &S3Settings, cache: PathBuf) -> Result<Self, CheckpointError> {
        let name = format!("s3://{}/{}", settings.bucket, settings.prefix);
        let failed = |message: String| CheckpointError::Bucket { name: name.clone(), message };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_retry(RetryConfig { retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() });
        if !settings.endpoint.is_empty() {
            builder = builder
                .with_endpoint(&settings.endpoint)
                .with_allow_http(settings.endpoint.starts_with("http://"));
        }
        if !settings.access_key.is_empty() {
            builder =
                builder.with_access_key_id(&settings.access_key).with_secret_access_key(&settings.secret_key);
        }
        let store = builder.build().map_err(|error| failed(error.to_string()))?;
        let runtime = Handle::try_current().map_err(|error| failed(error.to_string()))?;
        Ok(Self { store: Arc::new(store), prefix: settings.prefix.clone(), name, cache, runtime })
    }

    /// Uploads a staged folder whose manifest is written; the manifest goes last.
    pub(crate) fn upload(&self, folder: &Path, path: &str) -> Result<(), CheckpointError> {
        let manifest = Manifest::read(folder)?;
        self.runtime.block_on(async {
            for name in manifest.files.keys() {
                self.upload_file(&folder.join(name), &self.key(path, name)).await?;
            }
            let bytes =
                fs::read(folder.join(MANIFEST)).map_err(|source| CheckpointError::io(folder, source))?;
            let key = self.key(path, MANIFEST);
            self.store.put(&key, PutPayload::from(bytes)).await.map_err(|error| self.failed(&error))?;
            Ok(())
        })
    }

    async fn upload_file(&self, file: &Path, key: &Key) -> Result<(), CheckpointError> {
        let io = |source| CheckpointError::io(file, source);
        let mut from = tokio::fs::File::open(file).await.map_err(io)?;
        // In parts where the file is large; an upload that is not finished leaves no object.
        let mut to = BufWriter::new(Arc::<AmazonS3>::clone(&self.store), key.clone());
        let failed = |source: std::io::Error| CheckpointError::Bucket {
            name: self.name.clone(),
            message: format!("{key}: {source}"),
        };
        tokio::io::copy(&mut from, &mut to).await.map_err(failed)?;
        to.shutdown().await.map_err(failed)
    }

    /// The folder at `path` on this machine's disk, every file as its manifest says; what is there already is not fetched
    /// again.
    pub(crate) fn download(
        &self,
        path: &str,
        sha256: Option<&str>,
        staged: tempfile::TempDir,
    ) -> Result<PathBuf, CheckpointError> {
        let target = self.cache.join(path);
        let manifest = self.runtime.block_on(self.get(&self.key(path, MANIFEST)))?;
        let Some(manifest) = manifest else {
            let path = PathBuf::from(format!("{}/{path}", self.name));
            return Err(CheckpointError::Damaged { path, missing: MANIFEST.to_owned() });
        };
        let known = fs::read(target.join(MANIFEST)).is_ok_and(|known| known == manifest);
        if known && Manifest::verify(&target, sha256).is_ok() {
            return Ok(target);
        }
        let file = staged.path().join(MANIFEST);
        fs::write(&file, &manifest).map_err(|source| CheckpointError::io(&file, source))?;
        let names: Vec<String> = Manifest::read(staged.path())?.files.into_keys().collect();
        self.runtime.block_on(async {
            for name in names {
                self.download_file(&self.key(path, &name), &staged.path().join(&name)).await?;
            }
            Ok::<_, CheckpointError>(())
        })?;
        Manifest::verify(staged.path(), sha256)?;
        replace(staged, &target)?;
        Ok(target)
    }

    async fn download_file(&self, key: &Key, file: &Path) -> Result<(), CheckpointError> {
        let io = |source| CheckpointError::io(file, source);
        let mut chunks = self.store.get(key).await.map_err(|error| self.failed(&error))?.into_stream();
        if let Some(folder) = file.parent() {
            tokio::fs::create_dir_all(folder).await.map_err(io)?;
        }
        let mut to = tokio::fs::File::create(file).await.map_err(io)?;
        while let Some(chunk) = chunks.try_next().await.map_err(|error| self.failed(&error))? {
            to.write_all(&chunk).await.map_err(io)?;
        }
        to.sync_all().await.map_err(io)
    }

    async fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, CheckpointError> {
        match self.store.get(key).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(|error| self.failed(&error))?.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Deletes a folder, its manifest first: what is left after a failure is incomplete.
    pub(crate) fn delete(&self, path: &str) -> Result<(), CheckpointError> {
        let ignore_absent = |result: object_store::Result<()>| match result {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        };
        self.runtime.block_on(async {
            ignore_absent(self.store.delete(&self.key(path, MANIFEST)).await)?;
            let prefix = self.key(path, "");
            let files: Vec<_> =
                self.store.list(Some(&prefix)).try_collect().await.map_err(|error| self.failed(&error))?;
            for file in files {
                ignore_absent(self.store.delete(&file.location).await)?;
            }
            Ok(())
        })?;
        crate::remove(&self.cache.join(path))
    }

    /// Deletes every folder below `path` but the one at `kept`.
    pub(crate) fn prune(&self, path: &str, kept: &str) -> Result<(), CheckpointError> {
        let kept = self.key(kept, "");
        self.runtime.block_on(async {
            let below = self.key(path, "");
            let files: Vec<_> =
                self.store.list(Some(&below)).try_collect().await.map_err(|error| self.failed(&error))?;
            for file in files.iter().filter(|file| !file.location.prefix_matches(&kept)) {
                self.store.delete(&file.location).await.map_err(|error| self.failed(&error))?;
            }
            Ok(())
        })
    }

    fn key(&self, path: &str, file: &str) -> Key {
        Key::from_iter(
            [self.prefix.as_str(), path, file]
                .iter()
                .flat_map(|part| part.split('/'))
                .filter(|part| !part.is_empty()),
        )
    }

    fn failed(&self, error: &object_store::Error) -> CheckpointError {
        CheckpointError::Bucket { name: self.name.clone(), message: error.to_string() }
    }
}
