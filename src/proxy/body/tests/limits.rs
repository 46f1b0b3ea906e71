//! What a recording takes, and what becomes of it where it cannot have that.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Hands on all of a body; returns its recording.
async fn passed(steps: Vec<Step>, length: Option<u64>, recordings: &Arc<Recordings>) -> Shared {
    let recording = shared(steps, length, recordings);
    let (mut only, mut got) = (Reader::new(&recording), Got::default());
    let end = read_all(&mut only, &mut got).await;
    assert!(matches!(end, End::Whole), "{end:?}");
    recording
}

#[tokio::test]
async fn f04_a_small_body_takes_its_bytes_and_nothing_is_left_of_it() {
    let recordings = recordings(&limits(1 << 20, 0), TestDisk::default());
    let recording = passed(sends(&[&[1; 700], &[2; 300]]), Some(1000), &recordings).await;
    assert_eq!(recording.borrow().recorder.held(), 1000);
    assert_eq!(recordings.all_memory.taken(), 1000);
    drop(recording);
    settled(&recordings).await;
}

/// Counts when it is freed.
struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn f04_small_chunks_of_large_buffers_keep_no_buffer_alive() {
    let recordings = recordings(&limits(1 << 20, 0), TestDisk::default());
    let freed = Arc::new(AtomicUsize::new(0));
    let chunk = || Bytes::from_owner(Counted(vec![7; 8 << 10], freed.clone())).slice(..1);
    let chunks = (0..2000).map(|_| Step::Sends(chunk())).collect();
    let recording = passed(chunks, None, &recordings).await;
    assert_eq!(freed.load(Ordering::Relaxed), 2000);
    let held = recording.borrow().recorder.held();
    assert!((2000..=4096).contains(&held), "{held}");
    assert_eq!(recording.borrow().lost(), None);
}

#[tokio::test]
async fn f04_past_the_limit_the_recording_is_freed_and_the_body_goes_on() {
    let recordings = recordings(&limits(100, 0), TestDisk::default());
    let recording = shared(sends(&[&[1; 60], &[2; 60], &[3; 60]]), None, &recordings);
    let (mut only, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read(&mut only, 1, &mut got).await, End::Enough));
    assert_eq!(recording.borrow().lost(), None);
    assert!(recordings.all_memory.taken() > 0);
    assert!(matches!(read(&mut only, 1, &mut got).await, End::Enough));
    assert_eq!(recording.borrow().lost(), Some(Lost::TooLarge));
    settled(&recordings).await;
    assert!(matches!(read_all(&mut only, &mut got).await, End::Whole));
    assert_eq!(got.data.len(), 180);
}

#[tokio::test]
async fn f04_a_body_that_says_that_it_is_too_large_is_not_recorded_at_all() {
    let recordings = recordings(&limits(100, 100), TestDisk::new());
    let recording = shared(sends(&[&[1; 150], &[2; 51]]), Some(201), &recordings);
    assert_eq!(recording.borrow().lost(), None, "all of it is still there");
    let (mut only, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read(&mut only, 1, &mut got).await, End::Enough));
    assert_eq!(recordings.all_memory.taken(), 0);
    assert_eq!(recordings.all_disk.taken(), 0);
    assert_eq!(recording.borrow().lost(), Some(Lost::TooLarge));
}

#[tokio::test]
async fn f04_what_memory_has_no_room_for_goes_to_a_file_without_a_name() {
    let recordings = recordings(&limits(1000, 5000), TestDisk::new());
    let body: Vec<u8> = (0..6000_u32).map(|byte| byte as u8).collect();
    let chunks: Vec<_> = body.chunks(700).collect();
    let recording = passed(sends(&chunks), None, &recordings).await;
    assert_eq!(recordings.all_disk.taken(), 5000);
    assert_eq!(recordings.all_memory.taken(), 1000);
    assert_eq!(
        open_files(recordings.place.path()),
        usize::from(cfg!(target_os = "linux"))
    );
    let (mut second, mut again) = (Reader::new(&recording), Got::default());
    assert!(matches!(
        read_all(&mut second, &mut again).await,
        End::Whole
    ));
    assert!(again.data == body);
    drop((recording, second));
    settled(&recordings).await;
}

#[tokio::test]
async fn f04_while_the_disk_is_busy_the_client_is_read_as_far_as_memory_goes() {
    let disk = TestDisk::new();
    let gate = disk.gate.clone();
    let recordings = recordings(&limits(4096, 1 << 20), disk);
    let body: Vec<u8> = (0..40_000_u32).map(|byte| (byte / 7) as u8).collect();
    let chunks: Vec<_> = body.chunks(1000).collect();
    let recording = shared(sends(&chunks), None, &recordings);
    let (mut only, mut got) = (Reader::new(&recording), Got::default());
    gate.shut(true);
    let mut stuck = 0;
    while stuck < 100 {
        match only.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => {
                got.data.extend_from_slice(frame.data_ref().expect("data"));
            }
            Poll::Pending => stuck += 1,
            Poll::Ready(end) => panic!("{end:?}"),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(
        got.data.len(),
        5000,
        "memory, and the chunk that shows that it is full"
    );
    assert_eq!(recording.borrow().recorder.held(), 5000);
    gate.shut(false);
    assert!(matches!(read_all(&mut only, &mut got).await, End::Whole));
    assert!(got.data == body);
    assert_eq!(recording.borrow().lost(), None);
}

#[tokio::test]
async fn f04_a_disk_that_hangs_stops_the_recording_and_not_the_request() {
    let disk = TestDisk::new();
    let gate = disk.gate.clone();
    let patience = Duration::from_millis(50);
    let recordings = Recordings::in_place(&limits(100, 1000), Box::new(disk), patience);
    gate.shut(true);
    let passing = passed(sends(&[&[1; 90], &[2; 90], &[3; 90]]), None, &recordings);
    let soon = tokio::time::timeout(SOON / 2, passing);
    let recording = soon.await.expect("the disk is not waited for");
    assert_eq!(recording.borrow().lost(), Some(Lost::Disk));
    assert_eq!(recordings.all_memory.taken(), 0);
    gate.shut(false);
    drop(recording);
    settled(&recordings).await;
}

#[tokio::test]
async fn f04_all_recordings_together_have_a_limit() {
    let replay = Replay {
        total_memory: 150,
        total_disk: 250,
        ..limits(100, 200)
    };
    let recordings = recordings(&replay, TestDisk::new());
    // In memory; on disk, since memory is short; then the disk is short too.
    let first = passed(sends(&[&[1; 100]]), Some(100), &recordings).await;
    let second = passed(sends(&[&[2; 50], &[2; 40]]), None, &recordings).await;
    assert_eq!(first.borrow().lost(), None);
    assert_eq!(second.borrow().lost(), None);
    assert_eq!(recordings.all_memory.taken(), 100);
    assert_eq!(recordings.all_disk.taken(), 90);
    let third = passed(sends(&[&[3; 211]]), None, &recordings).await;
    assert_eq!(third.borrow().lost(), Some(Lost::Crowded));
    drop((first, second, third));
    settled(&recordings).await;
    let fourth = passed(sends(&[&[4; 100]]), None, &recordings).await;
    assert_eq!(fourth.borrow().lost(), None);
}

#[tokio::test]
async fn f04_once_answered_nothing_is_kept_of_what_has_passed() {
    let recordings = recordings(&limits(10_000, 0), TestDisk::default());
    // Each large enough for a buffer of its own.
    let chunks: [&[u8]; 3] = [&[1; 600], &[2; 1200], &[3; 1200]];
    let recording = shared(sends(&chunks), None, &recordings);
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read(&mut first, 2, &mut got).await, End::Enough));
    // The replay is answered before it has read what was recorded: it still needs that.
    let (mut second, mut again) = (Reader::new(&recording), Got::default());
    recording.borrow_mut().answered = true;
    assert!(matches!(
        read(&mut second, 1, &mut again).await,
        End::Enough
    ));
    assert_eq!(again.data.len(), 600);
    assert!(recordings.all_memory.taken() > 0);
    assert!(matches!(
        read_all(&mut second, &mut again).await,
        End::Whole
    ));
    assert!(again.data == chunks.concat());
    assert_eq!(recordings.all_memory.taken(), 0);
}
