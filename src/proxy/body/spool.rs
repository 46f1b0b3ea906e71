//! The temporary file of a recording. It has no name, so that nothing is left of it whatever becomes of the process.
//!
//! A worker serves many requests with one thread and must not wait for a disk. Everything here that may take its time
//! is done on the runtime's threads for such work, one thing at a time for each file.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::recordings::Recordings;

/// Where temporary files are made. Tests have one that fails.
pub(super) trait Disk: fmt::Debug + Send + Sync {
    /// The directory, to name it in a message.
    fn path(&self) -> &Path;

    /// Makes a file that no name leads to.
    fn create(&self) -> io::Result<File>;

    /// Writes all of `bytes` at `offset`.
    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    /// Fills `bytes` from `offset` on.
    fn read(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        file.read_exact_at(bytes, offset)
    }
}

/// A directory of the file system.
#[derive(Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Disk for Directory {
    fn path(&self) -> &Path {
        &self.0
    }

    fn create(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.0)
    }
}

/// A temporary file, which is made by the first write.
#[derive(Debug)]
pub(super) struct Spool {
    file: OnceLock<File>,
    /// What it may take of the total of all recordings.
    taken: AtomicU64,
    shared: Arc<Recordings>,
}

impl Spool {
    pub(super) fn new(shared: &Arc<Recordings>) -> Arc<Self> {
        Arc::new(Self {
            file: OnceLock::new(),
            taken: AtomicU64::new(0),
            shared: shared.clone(),
        })
    }

    /// Sets so many bytes of the total aside, if there are as many.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let fits = self.shared.all_disk.take(bytes);
        if fits {
            self.taken.fetch_add(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Writes `parts`, one after the other, from `offset` on.
    pub(super) fn write(
        self: &Arc<Self>,
        parts: Vec<Bytes>,
        mut offset: u64,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let spool = self.clone();
        let patience = self.shared.patience;
        let write = on_disk(self.shared.clone(), move || {
            let (file, place) = (spool.file()?, &spool.shared.place);
            for part in parts {
                place.write(file, &part, offset)?;
                offset += part.len() as u64;
            }
            Ok(())
        });
        async move {
            let written = tokio::time::timeout(patience, write).await;
            written.unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("a write took longer than {patience:?}"),
                ))
            })
        }
    }

    /// Reads so many bytes from `offset` on.
    pub(super) fn read(
        self: &Arc<Self>,
        offset: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<Bytes>> + use<> {
        let spool = self.clone();
        on_disk(self.shared.clone(), move || {
            let mut bytes = vec![0; length];
            spool.shared.place.read(spool.file()?, &mut bytes, offset)?;
            Ok(Bytes::from(bytes))
        })
    }

    fn file(&self) -> io::Result<&File> {
        if self.file.get().is_none() {
            // Another cannot have been made meanwhile: there is one write at a time.
            let _ = self.file.set(self.shared.place.create()?);
        }
        Ok(self.file.get().expect("it was made"))
    }
}

/// Does `work` where it may take its time, as one of few.
async fn on_disk<T: Send + 'static>(
    shared: Arc<Recordings>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let turn = shared.turns.clone().acquire_owned().await;
    let turn = turn.expect("the semaphore is never closed");
    let working = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(turn);
        done
    });
    // It is given up only when the runtime ends.
    working
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// A file that is about to be closed. Then its blocks are freed, which takes the longer the more there are.
struct Closing {
    file: Option<File>,
    taken: u64,
    shared: Arc<Recordings>,
}

impl Drop for Closing {
    fn drop(&mut self) {
        drop(self.file.take());
        self.shared.all_disk.give_back(self.taken);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let closing = Closing {
            file: self.file.take(),
            taken: *self.taken.get_mut(),
            shared: self.shared.clone(),
        };
        if closing.file.is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(closing));
        }
    }
}
