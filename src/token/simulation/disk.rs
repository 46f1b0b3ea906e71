//! A disk that fills up, fails, loses what was not synced, and whose user dies at any step.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use super::super::disk::{Content, Disk, Draft, Held, Lock, Sharing};
use super::super::record::Record;
use super::super::watch::Watch;
use super::world::{Inner, Life, World};
use crate::secret::ExposeSecret;

/// The name under which every process keeps its store.
pub(super) const STORE: &str = "/state/token_info.json";

/// All files, as they are and as a power cut would leave them.
#[derive(Debug, Default)]
pub(super) struct Files {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// What of `names` lasts, and the changes since in their order.
    lasting: BTreeMap<PathBuf, usize>,
    pending: Vec<(PathBuf, Option<usize>)>,
    locks: Vec<(PathBuf, Life, Sharing)>,
    watchers: Vec<Arc<Notify>>,
    /// Whether the store was last written, or removed, by somebody who knows nothing of the lock.
    pub(super) unlocked: bool,
    /// The content that was last read as a record, and the record.
    parsed: (Vec<u8>, Option<Record>),
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    lasting: Vec<u8>,
}

impl Files {
    fn name(&mut self, path: &Path, inode: Option<usize>) {
        match inode {
            Some(inode) => drop(self.names.insert(path.to_owned(), inode)),
            None => drop(self.names.remove(path)),
        }
        self.pending.push((path.to_owned(), inode));
        if path == Path::new(STORE) {
            self.watchers
                .iter()
                .for_each(|watcher| watcher.notify_one());
        }
    }

    fn sync_names(&mut self, up_to: usize) {
        for (path, inode) in self.pending.drain(..up_to) {
            match inode {
                Some(inode) => drop(self.lasting.insert(path, inode)),
                None => drop(self.lasting.remove(&path)),
            }
        }
    }

    /// Of what was not synced, some names last in their order, and of each file anything between nothing and all.
    pub(super) fn cut_power(&mut self, rng: &mut fastrand::Rng) {
        let survive = rng.usize(0..=self.pending.len());
        self.sync_names(survive);
        self.pending.clear();
        self.names = self.lasting.clone();
        for inode in &mut self.inodes {
            if inode.bytes != inode.lasting && rng.bool() {
                let torn = rng.usize(0..=inode.bytes.len());
                inode.lasting = inode.bytes[..torn].to_vec();
            }
            inode.bytes = inode.lasting.clone();
        }
        self.locks.clear();
    }

    pub(super) fn release_locks(&mut self, life: Life) {
        self.locks.retain(|(_, holder, _)| *holder != life);
    }

    fn holds_lock(&self, life: Life) -> bool {
        let holds = |(path, holder, sharing): &(PathBuf, Life, Sharing)| {
            *holder == life
                && *sharing == Sharing::Exclusive
                && path.to_string_lossy().ends_with(".lock")
        };
        self.locks.iter().any(holds)
    }

    /// The store's record as it is.
    pub(super) fn stored(&mut self) -> Option<Record> {
        let inode = *self.names.get(Path::new(STORE))?;
        self.parse(|files| &files.inodes[inode].bytes)
    }

    /// The store's record as a power cut would certainly leave it.
    pub(super) fn lasting(&mut self) -> Option<Record> {
        let is_store = |path: &PathBuf| path == Path::new(STORE);
        if self.pending.iter().any(|(path, _)| is_store(path)) {
            return None;
        }
        let inode = *self.lasting.get(Path::new(STORE))?;
        self.parse(|files| &files.inodes[inode].lasting)
    }

    fn parse(&mut self, bytes: impl Fn(&Self) -> &Vec<u8>) -> Option<Record> {
        if self.parsed.0 != *bytes(self) {
            let bytes = bytes(self).clone();
            self.parsed = (bytes.clone(), Record::from_json(&bytes).ok());
        }
        self.parsed.1.clone()
    }

    /// Whether there is a store, and it is not whole.
    pub(super) fn is_torn(&mut self) -> bool {
        self.names.contains_key(Path::new(STORE)) && self.stored().is_none()
    }

    /// Removes the store.
    pub(super) fn remove_store(&mut self) {
        self.unlocked = true;
        self.name(Path::new(STORE), None);
        self.sync_names(self.pending.len());
    }

    /// Writes as a program does that knows nothing of the lock.
    pub(super) fn put_without_lock(&mut self, record: &Record) {
        let bytes = record.to_json().to_vec();
        self.unlocked = true;
        self.inodes.push(Inode {
            lasting: bytes.clone(),
            bytes,
        });
        self.name(Path::new(STORE), Some(self.inodes.len() - 1));
        self.sync_names(self.pending.len());
    }
}

/// The disk as one process has it.
#[derive(Clone, Debug)]
pub(super) struct SimulatedDisk {
    pub(super) world: World,
    pub(super) life: Life,
    /// Whether the system tells of changes.
    pub(super) watched: bool,
}

impl SimulatedDisk {
    /// One step: it may fail, and the process may die before or after it.
    fn step<T>(
        &self,
        what: &str,
        fault: fn(&Inner) -> Option<i32>,
        act: impl FnOnce(&mut Inner) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut inner = self.world.lock();
        let gone = || Err(io::Error::other("the process is dead"));
        if !inner.is_alive(self.life) {
            return gone();
        }
        let (dies, fails) = (inner.faults.crash, inner.faults.disk_error);
        if inner.happens(dies) {
            if inner.rng.bool() {
                let done = act(&mut inner);
                inner.kill(self.life, &format!("after {what}"));
                // A lock or a draft in it wants the world to itself when it goes.
                drop(inner);
                drop(done);
            } else {
                inner.kill(self.life, &format!("before {what}"));
            }
            return gone();
        }
        let fault = fault(&inner).or_else(|| inner.happens(fails).then_some(EIO));
        let done = match fault {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => act(&mut inner),
        };
        if done.is_err() && what != "read" {
            inner.fate(self.life).write_failed = true;
            let life = self.life;
            inner.note(format!("process {life}: {what} fails"));
        }
        done
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn unwritable(inner: &Inner) -> Option<i32> {
    if inner.faults.read_only {
        Some(EROFS)
    } else {
        inner.faults.full.then_some(ENOSPC)
    }
}

fn read_only(inner: &Inner) -> Option<i32> {
    inner.faults.read_only.then_some(EROFS)
}

impl Disk for SimulatedDisk {
    fn read(&self, path: &Path) -> io::Result<Content> {
        // A file that is not there is no failure of the disk.
        let read = self.step(
            "read",
            |_| None,
            |inner| {
                let inode = inner.files.names.get(path);
                Ok(inode.map(|inode| inner.files.inodes[*inode].bytes.clone()))
            },
        )?;
        let bytes = read.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let bytes = bytes.into();
        Ok(Content { bytes, mode: 0o600 })
    }

    fn make_directory(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create(&self, directory: &Path) -> io::Result<Box<dyn Draft>> {
        self.step("create", unwritable, |inner| {
            inner.files.inodes.push(Inode::default());
            let inode = inner.files.inodes.len() - 1;
            let name = directory.join(format!("draft-{inode}"));
            inner.files.name(&name, Some(inode));
            let draft = SimulatedDraft {
                disk: self.clone(),
                inode,
                name: Some(name),
            };
            Ok(Box::new(draft) as Box<dyn Draft>)
        })
    }

    fn sync_directory(&self, _: &Path) -> io::Result<()> {
        self.step(
            "sync of the directory",
            |_| None,
            |inner| {
                let all = inner.files.pending.len();
                inner.files.sync_names(all);
                Ok(())
            },
        )
    }

    fn try_lock(&self, path: &Path, sharing: Sharing) -> io::Result<Option<Lock>> {
        self.step("lock", read_only, |inner| {
            let clashes = |(held, _, by): &(PathBuf, Life, Sharing)| {
                held == path && (*by == Sharing::Exclusive || sharing == Sharing::Exclusive)
            };
            if !inner.files.names.contains_key(path) {
                inner.files.inodes.push(Inode::default());
                let inode = inner.files.inodes.len() - 1;
                inner.files.name(path, Some(inode));
            }
            if inner.files.locks.iter().any(clashes) {
                return Ok(None);
            }
            inner
                .files
                .locks
                .push((path.to_owned(), self.life, sharing));
            let held = SimulatedLock {
                world: self.world.clone(),
                path: path.to_owned(),
                life: self.life,
                sharing,
            };
            Ok(Some(Lock::new(held)))
        })
    }

    fn watch(&self, _: &Path, _: &Path) -> Option<Watch> {
        let changed = Arc::new(Notify::new());
        self.watched.then(|| {
            self.world.lock().files.watchers.push(changed.clone());
            Watch::new(changed)
        })
    }
}

#[derive(Debug)]
struct SimulatedLock {
    world: World,
    path: PathBuf,
    life: Life,
    sharing: Sharing,
}

impl Held for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        let mut inner = self.world.lock();
        let locks = &mut inner.files.locks;
        let this = |(path, life, sharing): &(PathBuf, Life, Sharing)| {
            *path == self.path && *life == self.life && *sharing == self.sharing
        };
        if let Some(index) = locks.iter().position(this) {
            locks.remove(index);
        }
    }
}

#[derive(Debug)]
struct SimulatedDraft {
    disk: SimulatedDisk,
    inode: usize,
    name: Option<PathBuf>,
}

impl Draft for SimulatedDraft {
    fn write(&mut self, content: &[u8]) -> io::Result<()> {
        let inode = self.inode;
        self.disk.step("write", unwritable, |inner| {
            inner.files.inodes[inode].bytes.extend_from_slice(content);
            Ok(())
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        let inode = self.inode;
        self.disk.step("sync", unwritable, |inner| {
            let inode = &mut inner.files.inodes[inode];
            inode.lasting = inode.bytes.clone();
            Ok(())
        })
    }

    fn replace(mut self: Box<Self>, path: &Path) -> io::Result<()> {
        let (inode, life) = (self.inode, self.disk.life);
        let old = self.name.clone();
        self.disk.clone().step("rename", read_only, |inner| {
            check_succession(inner, life, inode);
            if let Some(old) = &old {
                inner.files.name(old, None);
            }
            self.name = None;
            inner.files.unlocked = false;
            inner.files.name(path, Some(inode));
            Ok(())
        })
    }
}

impl Drop for SimulatedDraft {
    fn drop(&mut self) {
        let mut inner = self.disk.world.lock();
        // What a dead process leaves lying about stays.
        if let Some(name) = self.name.take().filter(|_| inner.is_alive(self.disk.life)) {
            inner.files.name(&name, None);
        }
    }
}

/// Every record follows another by its generation, and is written under the lock (T2, T7, T18).
fn check_succession(inner: &mut Inner, life: Life, inode: usize) {
    let Ok(next) = Record::from_json(&inner.files.inodes[inode].bytes) else {
        return inner.violate(format!("process {life} stores what is no record"));
    };
    let shown = next.generation;
    inner.note(format!(
        "process {life} stores generation {shown:?}{}{}",
        if next.intent.is_some() {
            ", intent"
        } else {
            ""
        },
        if next.refusal.is_some() {
            ", refusal"
        } else {
            ""
        },
    ));
    if !inner.files.holds_lock(life) {
        inner.violate(format!("T2: process {life} writes without the lock"));
    }
    let Some(present) = inner.files.stored() else {
        return;
    };
    let goes_on = next.intent.is_some() && next.refusal.is_none() && next.same_tokens(&present);
    if present.refusal.is_some() && goes_on {
        inner.violate(format!(
            "T9: process {life} goes on with generation {shown:?}, which was refused"
        ));
    }
    let is_older = next.generation < present.generation;
    let takes_the_place = next.generation == present.generation && !next.same_tokens(&present);
    if is_older || takes_the_place {
        inner.violate(format!(
            "T7, T18: generation {shown:?} takes the place of {:?}",
            present.generation
        ));
    }
}

/// What must be so before a refresh token is sent (T2, T3).
pub(super) fn check_before_post(inner: &mut Inner, life: Life, refresh_token: &str) {
    if !inner.files.holds_lock(life) {
        inner.violate(format!("T2: process {life} posts without the lock"));
    }
    let noted = inner.files.lasting().is_some_and(|record| {
        record.intent.is_some() && record.refresh_token.expose_secret() == refresh_token
    });
    if !noted {
        inner.violate(format!(
            "T3: process {life} posts {refresh_token} without a lasting note"
        ));
    }
}
