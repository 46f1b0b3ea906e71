//! The recording alone, fed frame by frame.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::task::Waker;

use proptest::prelude::*;

use super::*;

/// A body from a script: `None` is a moment in which nothing has come yet.
#[derive(Debug)]
struct Script(VecDeque<Option<Frame<Bytes>>>);

impl Body for Script {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(None) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}

type Shared = Rc<RefCell<Recording<Script>>>;

fn shared(chunks: &[Option<Vec<u8>>], limit: usize) -> Shared {
    let frames = chunks
        .iter()
        .map(|chunk| chunk.clone().map(|chunk| Frame::data(Bytes::from(chunk))));
    Rc::new(RefCell::new(Recording::new(
        Script(frames.collect()),
        limit,
    )))
}

fn reader(recording: &Shared) -> Reader<Script> {
    let mut shared = recording.borrow_mut();
    shared.attempt += 1;
    Reader {
        recording: recording.clone(),
        attempt: shared.attempt,
        next: 0,
        trailers_read: false,
        hint: shared.hint(),
    }
}

/// Reads at most `frames` frames; `true` when the end came.
fn read(reader: &mut Reader<Script>, mut frames: usize, into: &mut Vec<u8>) -> bool {
    let mut stalled = 0;
    while frames > 0 && stalled < 100 {
        match reader.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => {
                into.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                frames -= 1;
            }
            Poll::Ready(None) => return true,
            Poll::Pending => stalled += 1,
        }
    }
    false
}

#[tokio::test]
async fn f05_an_attempt_that_was_overtaken_stands_still() {
    let recording = shared(&[Some(b"one".to_vec()), Some(b"two".to_vec())], 100);
    let mut first = reader(&recording);
    let mut sent = Vec::new();
    assert!(!read(&mut first, 1, &mut sent));
    let mut second = reader(&recording);
    assert!(
        !read(&mut first, 1, &mut sent),
        "it neither ends nor goes on"
    );
    assert_eq!(sent, b"one");
    let mut replayed = Vec::new();
    assert!(read(&mut second, usize::MAX, &mut replayed));
    assert_eq!(replayed, b"onetwo");
}

#[tokio::test]
async fn f04_past_the_limit_the_recording_is_freed_and_the_body_goes_on() {
    let recording = shared(
        &[Some(vec![1; 60]), Some(vec![2; 60]), Some(vec![3; 60])],
        100,
    );
    let mut only = reader(&recording);
    let mut sent = Vec::new();
    assert!(!read(&mut only, 1, &mut sent));
    assert!(recording.borrow().whole);
    assert!(read(&mut only, usize::MAX, &mut sent));
    assert_eq!(sent.len(), 180);
    assert!(!recording.borrow().whole);
    assert!(
        recording.borrow().chunks.is_empty(),
        "nothing is kept of it"
    );
}

#[tokio::test]
async fn f02_credentials_in_trailers_are_gone_in_every_attempt() {
    let mut trailers = HeaderMap::new();
    trailers.insert(
        "authorization",
        http::HeaderValue::from_static("Bearer stale"),
    );
    trailers.insert("x-checksum", http::HeaderValue::from_static("1"));
    let script = Script(VecDeque::from([Some(Frame::trailers(trailers))]));
    let recording = Rc::new(RefCell::new(Recording::new(script, 100)));
    for _ in 0..2 {
        let mut attempt = reader(&recording);
        let frame = attempt.poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Some(Ok(frame))) = frame else {
            panic!("no frame")
        };
        let trailers = frame.into_trailers().expect("trailers");
        assert_eq!(
            trailers
                .keys()
                .map(http::HeaderName::as_str)
                .collect::<Vec<_>>(),
            ["x-checksum"]
        );
    }
}

proptest! {
    #[test]
    fn f05_a_replay_is_byte_identical_wherever_the_first_attempt_stopped(
        chunks in proptest::collection::vec(proptest::option::weighted(0.7, proptest::collection::vec(any::<u8>(), 1..20)), 0..20),
        stop_after in 0..25_usize,
        limit in 0..300_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let _inside = runtime.enter();
        let body: Vec<u8> = chunks.iter().flatten().flatten().copied().collect();
        let recording = shared(&chunks, limit);
        let mut first = reader(&recording);
        let mut sent = Vec::new();
        read(&mut first, stop_after, &mut sent);
        prop_assert_eq!(&body[..sent.len()], &sent[..], "each byte once and in order");
        let replayable = recording.borrow().whole;
        prop_assert_eq!(replayable, sent.len() <= limit);
        if replayable {
            let mut second = reader(&recording);
            let mut replayed = Vec::new();
            prop_assert!(read(&mut second, usize::MAX, &mut replayed));
            prop_assert_eq!(replayed, body);
        }
    }
}
