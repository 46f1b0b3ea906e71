//! One body, several attempts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use super::*;

fn unlimited() -> Arc<Recordings> {
    recordings(&limits(1000, 0), TestDisk::default())
}

#[tokio::test]
async fn f05_an_attempt_that_was_overtaken_stands_still() {
    let recording = shared(sends(&[b"one", b"two"]), None, &unlimited());
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read(&mut first, 1, &mut got).await, End::Enough));
    let (mut second, mut again) = (Reader::new(&recording), Got::default());
    let polled = first.poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it neither ends nor goes on");
    assert!(matches!(
        read_all(&mut second, &mut again).await,
        End::Whole
    ));
    assert_eq!(got.data, b"one");
    assert_eq!(again.data, b"onetwo");
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn f06_an_attempt_whose_replay_came_to_nothing_is_woken_and_goes_on() {
    let recording = shared(sends(&[b"one", b"two", b"three"]), None, &unlimited());
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read(&mut first, 1, &mut got).await, End::Enough));
    recording.borrow_mut().pause();
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    assert!(first.poll(&mut Context::from_waker(&waker)).is_pending());
    let (mut second, mut again) = (Reader::new(&recording), Got::default());
    assert!(matches!(
        read(&mut second, 2, &mut again).await,
        End::Enough
    ));
    drop(second);
    assert!(!flag.0.load(Ordering::Relaxed), "it still stands still");
    recording.borrow_mut().resume();
    assert!(flag.0.load(Ordering::Relaxed));
    assert!(matches!(read_all(&mut first, &mut got).await, End::Whole));
    assert_eq!(got.data, b"onetwothree");
}

#[tokio::test]
async fn f05_a_body_that_broke_off_is_not_replayed_and_never_ends_cleanly() {
    let mut steps = sends(&[b"one"]);
    steps.push(Step::Leaves);
    let recording = shared(steps, None, &unlimited());
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    let end = read_all(&mut first, &mut got).await;
    assert!(matches!(end, End::Failed(OutgoingError::Client(Left))));
    assert_eq!(recording.borrow().lost(), Some(Lost::Gone));
    // Should one be made all the same: the client's channel would now just end.
    let (mut second, mut again) = (Reader::new(&recording), Got::default());
    let end = read_all(&mut second, &mut again).await;
    assert!(matches!(end, End::Failed(OutgoingError::Gone)), "{end:?}");
}

#[tokio::test]
async fn f02_credentials_in_trailers_are_gone_in_every_attempt() {
    let mut trailers = header_map("authorization", "Bearer stale");
    trailers.extend(header_map("x-checksum", "1"));
    let recording = shared([Step::SendsTrailers(trailers)], None, &unlimited());
    for _ in 0..2 {
        let (mut attempt, mut got) = (Reader::new(&recording), Got::default());
        assert!(matches!(read_all(&mut attempt, &mut got).await, End::Whole));
        assert_eq!(got.trailers, Some(header_map("x-checksum", "1")));
    }
}

#[tokio::test]
async fn f05_each_attempt_announces_the_length_that_the_client_announced() {
    let recording = shared(sends(&[b"one", b"two"]), Some(6), &unlimited());
    let (first, mut got) = (Reader::new(&recording), Got::default());
    let mut first = first;
    assert_eq!(first.length, Some(6));
    assert!(matches!(read(&mut first, 2, &mut got).await, End::Enough));
    assert!(first.ended, "nothing more is asked for");
    let second = Reader::new(&recording);
    assert_eq!((second.length, second.ended), (Some(6), false));
}

#[tokio::test]
async fn a_replay_moves_while_upstream_takes_what_was_recorded() {
    let recording = shared(sends(&[b"one", b"two"]), Some(6), &unlimited());
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read_all(&mut first, &mut got).await, End::Whole));
    assert!(recording.borrow().progress.ended);
    let before = recording.borrow().progress.moved;
    let (mut second, mut again) = (Reader::new(&recording), Got::default());
    assert!(!recording.borrow().progress.ended, "it begins anew");
    assert!(matches!(
        read_all(&mut second, &mut again).await,
        End::Whole
    ));
    let progress = recording.borrow().progress;
    assert!(progress.ended && progress.moved > before);
}

/// A client of which nothing has come, and who waits for it.
struct Silent(Rc<RefCell<Option<Waker>>>);

impl Body for Silent {
    type Data = Bytes;
    type Error = Left;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Left>>> {
        *self.0.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[tokio::test]
async fn f06_an_attempt_that_goes_on_is_woken_although_another_has_waited_in_its_place() {
    let waiting = Rc::new(RefCell::new(None));
    let silent = Silent(waiting.clone());
    let recording = Recording::new(silent, Version::HTTP_11, None, &unlimited());
    let recording = Rc::new(RefCell::new(recording));
    let flags: [Arc<Flag>; 2] = Default::default();
    let wakers = flags.each_ref().map(|flag| Waker::from(flag.clone()));
    let mut first = Reader::new(&recording);
    assert!(
        first
            .poll(&mut Context::from_waker(&wakers[0]))
            .is_pending()
    );
    recording.borrow_mut().pause();
    let mut second = Reader::new(&recording);
    assert!(
        second
            .poll(&mut Context::from_waker(&wakers[1]))
            .is_pending()
    );
    drop(second);
    recording.borrow_mut().resume();
    assert!(flags[0].0.load(Ordering::Relaxed), "it looks for itself");
}

#[tokio::test]
async fn trailers_are_the_end_of_a_request_and_so_is_its_announced_length() {
    let mut steps = sends(&[b"one"]);
    steps.push(Step::SendsTrailers(header_map("x-checksum", "1")));
    let recording = shared(steps, None, &unlimited());
    let (mut attempt, mut got) = (Reader::new(&recording), Got::default());
    assert!(matches!(read(&mut attempt, 1, &mut got).await, End::Enough));
    assert!(!recording.borrow().progress.ended);
    assert!(matches!(read(&mut attempt, 1, &mut got).await, End::Enough));
    assert!(recording.borrow().progress.ended);
    let empty = shared([Step::Stops], Some(0), &unlimited());
    let _attempt = Reader::new(&empty);
    assert!(empty.borrow().progress.ended, "nobody asks for any of it");
}
