//! The recording alone, fed frame by frame: a client from a script, a disk that fails where it is told to.

mod attempts;
mod limits;
mod properties;

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::super::recordings::Recordings;
use super::super::spool::Disk;
use super::*;
use crate::config::Replay;

/// For what should happen at once.
const SOON: Duration = Duration::from_secs(20);

/// What a client does next.
#[derive(Clone)]
enum Step {
    Sends(Bytes),
    /// Nothing has come yet.
    IsSlow,
    SendsTrailers(HeaderMap),
    Leaves,
    /// Nothing comes any more.
    Stops,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sends(chunk) => write!(f, "Sends({})", chunk.len()),
            Self::IsSlow => f.write_str("IsSlow"),
            Self::SendsTrailers(_) => f.write_str("SendsTrailers"),
            Self::Leaves => f.write_str("Leaves"),
            Self::Stops => f.write_str("Stops"),
        }
    }
}

/// A body from a script.
#[derive(Debug)]
struct Script {
    steps: VecDeque<Step>,
    /// What has been announced and not come yet.
    left: Option<u64>,
    /// The length of the longest chunk.
    longest: usize,
    stopped: Rc<Cell<bool>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the script says so")]
struct Left;

impl Body for Script {
    type Data = Bytes;
    type Error = Left;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Left>>> {
        match self.steps.pop_front() {
            Some(Step::Sends(chunk)) => {
                self.left = self.left.map(|left| left - chunk.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Some(Step::IsSlow) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Step::SendsTrailers(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Some(Step::Leaves) => Poll::Ready(Some(Err(Left))),
            Some(Step::Stops) => {
                self.stopped.set(true);
                self.steps.push_front(Step::Stops);
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A disk that fails where it is told to.
#[derive(Debug, Default)]
struct TestDisk {
    directory: Option<tempfile::TempDir>,
    /// How many bytes a file takes; `None` for all.
    takes: Option<u64>,
    /// How many bytes it gives back; `None` for all.
    gives: Option<u64>,
    /// Where it is held up.
    gate: Gate,
}

#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn shut(&self, shut: bool) {
        *self.0.0.lock().expect("whole") = shut;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let shut = self.0.0.lock().expect("whole");
        // Not for ever: a runtime waits for whoever waits here, also after a test has failed.
        let waited = self.0.1.wait_timeout_while(shut, SOON, |shut| *shut);
        drop(waited.expect("whole"));
    }
}

impl TestDisk {
    fn new() -> Self {
        Self {
            directory: Some(tempfile::tempdir().expect("a directory")),
            ..Self::default()
        }
    }
}

fn within(end: u64, limit: Option<u64>) -> io::Result<()> {
    match limit {
        Some(limit) if end > limit => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}

impl Disk for TestDisk {
    fn path(&self) -> &Path {
        self.directory
            .as_ref()
            .map_or(Path::new("/nowhere"), tempfile::TempDir::path)
    }

    fn create(&self) -> io::Result<File> {
        tempfile::tempfile_in(self.path())
    }

    fn write(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.pass();
        within(offset + bytes.len() as u64, self.takes)?;
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }

    fn read(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        within(offset + bytes.len() as u64, self.gives)?;
        std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
    }
}

fn limits(memory: usize, disk: u64) -> Replay {
    Replay {
        memory,
        disk,
        total_memory: 1 << 20,
        total_disk: 1 << 20,
        directory: "/nowhere".into(),
    }
}

fn recordings(replay: &Replay, disk: TestDisk) -> Arc<Recordings> {
    Recordings::in_place(replay, Box::new(disk), SOON)
}

type Shared = Rc<RefCell<Recording<Script>>>;

fn shared(
    steps: impl IntoIterator<Item = Step>,
    length: Option<u64>,
    recordings: &Arc<Recordings>,
) -> Shared {
    let steps: VecDeque<_> = steps.into_iter().collect();
    let longest = steps.iter().map(|step| match step {
        Step::Sends(chunk) => chunk.len(),
        _ => 0,
    });
    let script = Script {
        longest: longest.max().unwrap_or_default(),
        steps,
        left: length,
        stopped: Rc::default(),
    };
    let recording = Recording::new(script, Version::HTTP_11, None, recordings);
    Rc::new(RefCell::new(recording))
}

fn sends(chunks: &[&[u8]]) -> Vec<Step> {
    chunks
        .iter()
        .map(|chunk| Step::Sends(Bytes::copy_from_slice(chunk)))
        .collect()
}

/// How reading ended.
#[derive(Debug)]
enum End {
    /// As many frames came as were asked for.
    Enough,
    Whole,
    Failed(OutgoingError<Left>),
    /// The client has stopped.
    Stopped,
}

/// What an attempt has read.
#[derive(Debug, Default)]
struct Got {
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
}

/// Reads at most so many frames, and sees to it that memory stays within its limit and one chunk.
async fn read(reader: &mut Reader<Script>, frames: usize, got: &mut Got) -> End {
    let recording = reader.recording.clone();
    let stopped = recording.borrow().incoming.stopped.clone();
    for _ in 0..frames {
        let frame = poll_fn(|cx| {
            stopped.set(false);
            match reader.poll(cx) {
                Poll::Pending if stopped.get() => Poll::Ready(Err(End::Stopped)),
                polled => polled.map(Ok),
            }
        });
        let frame = match frame.await {
            Err(end) => return end,
            Ok(None) => return End::Whole,
            Ok(Some(Err(error))) => return End::Failed(error),
            Ok(Some(Ok(frame))) => frame,
        };
        match frame.into_data() {
            Ok(data) => got.data.extend_from_slice(&data),
            Err(frame) => got.trailers = frame.into_trailers().ok(),
        }
        let recording = recording.borrow();
        let bound = recording.recorder.limit() + recording.incoming.longest;
        assert!(recording.recorder.held() <= bound, "{recording:?}");
    }
    End::Enough
}

async fn read_all(reader: &mut Reader<Script>, got: &mut Got) -> End {
    read(reader, usize::MAX, got).await
}

/// Waits until everything that was taken has been given back, and sees that no file is left.
async fn settled(recordings: &Recordings) {
    let begun = std::time::Instant::now();
    while (recordings.all_memory.taken(), recordings.all_disk.taken()) != (0, 0) {
        assert!(begun.elapsed() < SOON, "{recordings:?}");
        tokio::task::yield_now().await;
    }
    if recordings.place.path().exists() {
        assert_eq!(open_files(recordings.place.path()), 0);
        let mut entries = std::fs::read_dir(recordings.place.path()).expect("a directory");
        assert!(entries.next().is_none(), "nothing is left");
    }
}

/// How many files of a directory this process has open; not known everywhere.
fn open_files(directory: &Path) -> usize {
    let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") else {
        return 0;
    };
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(directory))
        .count()
}

fn header_map(name: &'static str, value: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )])
}
