//! What has passed of a request body, kept so that it can be read again from its beginning (rule F4).
//!
//! The recording is one row of bytes. Its front is in a temporary file, what follows is in memory: all of it, as long
//! as it fits there. A body that is larger than that goes to the file from the front on, buffer by buffer, while it
//! goes on arriving; memory is then no more than the distance between the client and the disk.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use super::recordings::Recordings;
use super::spool::Spool;

/// The least size of a buffer where it is not known how much will come: many small chunks share one.
const LEAST: usize = 512;

/// The largest size of a body that is kept without a copy if it comes in one piece.
const SMALL: usize = 64 << 10;

/// The largest size of a buffer, and of what is read back at a time: large enough that handing it to another thread
/// costs little beside the copy.
const MOST: usize = 256 << 10;

/// A recording.
///
/// Chunks are copied into buffers of its own, but for small bodies that come in one. What hyper hands out are slices of its
/// read buffers, and slices of one byte would keep one buffer of up to 400 KiB each in memory, so nobody could say what a
/// recording takes.
pub(super) struct Recorder {
    shared: Arc<Recordings>,
    /// How many bytes the body has, as far as that is known.
    length: Option<u64>,
    /// Bytes that are recorded.
    kept: u64,
    /// Of these in the file: the front.
    stored: u64,
    /// All of a small body that came in one chunk; nothing else is kept of it then.
    whole: Bytes,
    /// Buffers that are full: what follows the front.
    full: VecDeque<Bytes>,
    /// The buffer that is being filled: what follows them.
    filling: Vec<u8>,
    /// What there was no room for of the last chunk; nothing more may come before it has found some.
    waiting: Bytes,
    /// The size of all buffers.
    held: usize,
    /// `None` as long as all of it is to stay in memory.
    spool: Option<Arc<Spool>>,
    writing: Option<Writing>,
    /// The disk has failed; what it took before is still read from it.
    disk_failed: bool,
    /// All recordings together had no room for this one when it last asked.
    crowded: bool,
    lost: Option<Lost>,
}

/// Why there is no recording of what has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It is larger than one may become.
    #[error("the request body is larger than replay.memory and replay.disk together")]
    TooLarge,
    /// The others leave it too little.
    #[error(
        "the recorded bodies of all requests have used up replay.total_memory and replay.total_disk"
    )]
    Crowded,
    /// The disk has failed.
    #[error("the request body could not be recorded in replay.directory, see the log")]
    Disk,
    /// The client has left, or sends what is no body.
    #[error("the request body ended before its time")]
    Gone,
    /// It was not needed any more.
    #[error("the request was answered")]
    Answered,
}

/// What is recorded at some place.
pub(super) enum Recorded {
    InMemory(Bytes),
    OnDisk(Reading),
}

/// A read from the file that is under way.
pub(super) type Reading = Pin<Box<dyn Future<Output = io::Result<Bytes>>>>;

/// A write to the file that is under way: of so many bytes behind those that are stored.
struct Writing {
    length: u64,
    done: Pin<Box<dyn Future<Output = io::Result<()>>>>,
}

impl Recorder {
    /// A recording of a body of this length; none at all where it is clear that it would be lost in the end.
    pub(super) fn new(shared: &Arc<Recordings>, length: Option<u64>) -> Self {
        let beyond = |limit: u64| length.is_some_and(|length| length > limit);
        let memory = shared.memory as u64;
        let too_large = beyond(memory.saturating_add(shared.disk));
        let on_disk = shared.disk > 0 && beyond(memory) && !too_large;
        Self {
            shared: shared.clone(),
            length,
            kept: 0,
            stored: 0,
            whole: Bytes::new(),
            full: VecDeque::new(),
            filling: Vec::new(),
            waiting: Bytes::new(),
            held: 0,
            spool: on_disk.then(|| Spool::new(shared)),
            writing: None,
            disk_failed: false,
            crowded: false,
            lost: too_large.then_some(Lost::TooLarge),
        }
    }

    /// Why there is no recording, where that is so.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.lost
    }

    /// Frees what is recorded, for good.
    pub(super) fn give_up(&mut self, reason: Lost) {
        if self.lost.is_some() {
            return;
        }
        self.lost = Some(reason);
        self.whole = Bytes::new();
        self.full = VecDeque::new();
        self.filling = Vec::new();
        self.waiting = Bytes::new();
        self.writing = None;
        self.spool = None;
        self.let_go(self.held);
    }

    /// Records a chunk. [`Recorder::poll_room`] was ready before.
    pub(super) fn keep(&mut self, chunk: &Bytes) {
        if self.lost.is_some() {
            return;
        }
        debug_assert!(self.waiting.is_empty(), "there is room");
        self.crowded = false;
        self.kept += chunk.len() as u64;
        if self.is_whole(chunk) && self.shared.all_memory.take(chunk.len() as u64) {
            self.held = chunk.len();
            self.whole = chunk.clone();
            return;
        }
        let taken = self.fill(chunk);
        if taken < chunk.len() {
            self.waiting = chunk.slice(taken..);
            if self.shared.disk > 0 && self.spool.is_none() {
                self.spool = Some(Spool::new(&self.shared));
            }
        }
    }

    /// Ready when the next chunk may come: always, but while the disk has yet to take what memory has no room for.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.spool.is_none() && self.waiting.is_empty() {
            // All of it is in memory, as of nearly every body.
            return Poll::Ready(());
        }
        loop {
            if let Some(writing) = &mut self.writing {
                let Poll::Ready(written) = writing.done.as_mut().poll(cx) else {
                    return match self.waiting.is_empty() {
                        true => Poll::Ready(()),
                        false => Poll::Pending,
                    };
                };
                let length = writing.length;
                self.writing = None;
                self.finish_write(length, written);
            }
            self.writing = self.begin_write();
            if self.writing.is_none() {
                break;
            }
        }
        if !self.waiting.is_empty() {
            self.give_up(self.reason());
        }
        Poll::Ready(())
    }

    /// What is recorded from `position` on, which lies before the end: some of it. Only while nothing is lost.
    pub(super) fn at(&self, position: u64) -> Recorded {
        if position < self.stored {
            let spool = self.spool.as_ref().expect("what is stored is in a file");
            let length =
                usize::try_from(self.stored - position).map_or(MOST, |left| left.min(MOST));
            let reading = spool.read(position, length);
            return Recorded::OnDisk(Box::pin(reading));
        }
        let mut before = position - self.stored;
        if before < self.whole.len() as u64 {
            return Recorded::InMemory(self.whole.slice(index(before)..));
        }
        for buffer in &self.full {
            let length = buffer.len() as u64;
            if before < length {
                return Recorded::InMemory(buffer.slice(index(before)..));
            }
            before -= length;
        }
        if before < self.filling.len() as u64 {
            let rest = &self.filling[index(before)..];
            return Recorded::InMemory(Bytes::copy_from_slice(rest));
        }
        before -= self.filling.len() as u64;
        debug_assert!(before < self.waiting.len() as u64, "it lies before the end");
        Recorded::InMemory(self.waiting.slice(index(before)..))
    }

    /// Whether this is all of a small body: it can be kept as it is, since there is but one slice of that buffer, which
    /// hyper's connection would hold anyway.
    fn is_whole(&self, chunk: &Bytes) -> bool {
        let length = chunk.len();
        self.length == Some(length as u64) && length <= SMALL.min(self.shared.memory)
    }

    /// Copies as much of `bytes` as there is room for in memory; returns how much that was.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            let spare = self.filling.capacity() - self.filling.len();
            if spare == 0 && !self.add_buffer(bytes.len() - taken) {
                break;
            }
            let spare = self.filling.capacity() - self.filling.len();
            let piece = &bytes[taken..bytes.len().min(taken + spare)];
            self.filling.extend_from_slice(piece);
            taken += piece.len();
        }
        taken
    }

    /// Makes room for more bytes, of which `wanted` are there, if the limits have any left.
    fn add_buffer(&mut self, wanted: usize) -> bool {
        let room = self.shared.memory - self.held;
        // Each as large as all before: few buffers for a large body, little waste for a small one.
        let most = MOST.min(self.shared.memory / 4).max(LEAST);
        let to_come = self.length.map_or(usize::MAX, |length| {
            let recorded = self.kept - wanted as u64;
            usize::try_from(length.saturating_sub(recorded)).unwrap_or(usize::MAX)
        });
        let usual = wanted.max(self.held).max(LEAST).min(most);
        let size = usual.min(to_come).min(room);
        if size == 0 {
            return false;
        }
        if !self.shared.all_memory.take(size as u64) {
            self.crowded = true;
            return false;
        }
        self.held += size;
        self.retire(Vec::with_capacity(size));
        true
    }

    /// Puts `next` in the place of the buffer that is full.
    fn retire(&mut self, next: Vec<u8>) {
        let full = mem::replace(&mut self.filling, next);
        if !full.is_empty() {
            self.full.push_back(full.into());
        }
    }

    /// A write of all that is due, as far as the disk may take it.
    fn begin_write(&mut self) -> Option<Writing> {
        if !self.waiting.is_empty() {
            // It waits because this one is full too.
            self.retire(Vec::new());
        }
        let due: u64 = self.due().map(|part| part.len() as u64).sum();
        let length = due.min(self.shared.disk - self.stored);
        let spool = self
            .spool
            .clone()
            .filter(|_| length > 0 && !self.disk_failed)?;
        if !spool.reserve(length) {
            self.crowded = true;
            return None;
        }
        let mut left = length;
        let parts = self.due().map_while(|part| {
            let taken = index(left.min(part.len() as u64));
            left -= taken as u64;
            (taken > 0).then(|| part.slice(..taken))
        });
        let done = Box::pin(spool.write(parts.collect(), self.stored));
        Some(Writing { length, done })
    }

    /// What should go to the file, from the front.
    fn due(&self) -> impl Iterator<Item = &Bytes> {
        let waiting = Some(&self.waiting).filter(|waiting| !waiting.is_empty());
        self.full.iter().chain(waiting)
    }

    fn finish_write(&mut self, length: u64, written: io::Result<()>) {
        match written {
            Ok(()) => {
                self.stored += length;
                self.forget(length);
                let rest = mem::take(&mut self.waiting);
                let taken = self.fill(&rest);
                self.waiting = rest.slice(taken..);
            }
            Err(error) => {
                self.shared.warn_of(&error);
                self.disk_failed = true;
            }
        }
    }

    /// Frees what is in the file now: so many bytes from the front of memory.
    fn forget(&mut self, mut length: u64) {
        while length > 0
            && let Some(buffer) = self.full.pop_front()
        {
            let size = buffer.len();
            if size as u64 > length {
                // The file has become as large as it may. The rest is moved, so that its buffer can be freed too.
                let rest = Bytes::copy_from_slice(&buffer[index(length)..]);
                self.full.push_front(rest);
                return self.let_go(index(length));
            }
            length -= size as u64;
            self.let_go(size);
        }
        self.waiting.advance(index(length));
    }

    /// Gives memory back.
    fn let_go(&mut self, bytes: usize) {
        self.held -= bytes;
        self.shared.all_memory.give_back(bytes as u64);
    }

    fn reason(&self) -> Lost {
        match (self.disk_failed, self.crowded) {
            (true, _) => Lost::Disk,
            (false, true) => Lost::Crowded,
            (false, false) => Lost::TooLarge,
        }
    }

    /// Bytes of memory that this may take, beside a chunk.
    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        self.shared.memory
    }

    /// Bytes of memory that this takes.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.held + self.waiting.len()
    }
}

/// A place within a buffer, which is never as large as memory.
fn index(within: u64) -> usize {
    usize::try_from(within).expect("a buffer's length is a usize")
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.let_go(self.held);
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("kept", &self.kept)
            .field("stored", &self.stored)
            .field("held", &self.held)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}
