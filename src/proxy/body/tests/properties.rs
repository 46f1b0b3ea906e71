//! Wherever the first attempt ends, however the client sends, whatever the limits are and whenever the disk fails:
//! the replay is the body, or does not happen.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
});

/// What a client sends, and how it ends.
#[derive(Clone)]
struct Sending {
    steps: Vec<Step>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {:?}", self.steps, self.length)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    WithLength,
    Chunked,
    WithTrailers,
    Leaving { announced: bool },
    Stopping { announced: bool },
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        3 => Just(Ending::WithLength),
        2 => Just(Ending::Chunked),
        1 => Just(Ending::WithTrailers),
        1 => any::<bool>().prop_map(|announced| Ending::Leaving { announced }),
        1 => any::<bool>().prop_map(|announced| Ending::Stopping { announced }),
    ]
}

fn sending() -> impl Strategy<Value = Sending> {
    // Sizes around those of buffers and limits; `None` is a moment in which nothing has come yet.
    let size = prop_oneof![Just(1_usize), 1..40_usize, 400..700_usize, 2000..3000_usize];
    let steps = vec(proptest::option::weighted(0.8, size), 0..12);
    (steps, ending(), any::<u8>()).prop_map(|(sizes, ending, seed)| {
        let mut sending = Sending {
            steps: Vec::new(),
            body: Vec::new(),
            trailers: None,
            length: None,
        };
        let mut number = u32::from(seed);
        for size in sizes {
            let Some(size) = size else {
                sending.steps.push(Step::IsSlow);
                continue;
            };
            let chunk: Vec<u8> = std::iter::repeat_with(|| {
                number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (number >> 24) as u8
            })
            .take(size)
            .collect();
            sending.body.extend_from_slice(&chunk);
            sending.steps.push(Step::Sends(chunk.into()));
        }
        let length = sending.body.len() as u64;
        match ending {
            Ending::WithLength => sending.length = Some(length),
            Ending::Chunked => {}
            Ending::WithTrailers => {
                let trailers = header_map("x-checksum", "1");
                sending.steps.push(Step::SendsTrailers(trailers.clone()));
                sending.trailers = Some(trailers);
            }
            Ending::Leaving { announced } => {
                sending.steps.push(Step::Leaves);
                sending.length = announced.then_some(length + 10);
            }
            Ending::Stopping { announced } => {
                sending.steps.push(Step::Stops);
                sending.length = announced.then_some(length + 10);
            }
        }
        sending
    })
}

/// Limits, and what the disk and the other recordings do to this one.
#[derive(Clone, Debug)]
struct Room {
    memory: usize,
    disk: u64,
    others: bool,
    directory: bool,
    takes: Option<u64>,
    gives: Option<u64>,
}

impl Room {
    fn is_healthy(&self) -> bool {
        !self.others && self.directory && self.takes.is_none()
    }

    fn holds(&self, passed: usize) -> bool {
        passed as u64 <= self.memory as u64 + self.disk
    }
}

fn room() -> impl Strategy<Value = Room> {
    let failing = || proptest::option::weighted(0.2, 0..6000_u64);
    let memory = prop_oneof![Just(0), 1..100_usize, 400..3000_usize, Just(1 << 20)];
    let disk = prop_oneof![2 => Just(0), 1 => 1..100_u64, 3 => 400..9000_u64, 1 => Just(1 << 20)];
    let others = proptest::bool::weighted(0.1);
    let directory = proptest::bool::weighted(0.9);
    (memory, disk, others, directory, failing(), failing()).prop_map(
        |(memory, disk, others, directory, takes, gives)| Room {
            memory,
            disk,
            others,
            directory,
            takes,
            gives,
        },
    )
}

fn recordings_in(room: &Room) -> Arc<Recordings> {
    let disk = TestDisk {
        takes: room.takes,
        gives: room.gives,
        ..if room.directory {
            TestDisk::new()
        } else {
            TestDisk::default()
        }
    };
    let replay = Replay {
        // As if the others had left a little.
        total_memory: if room.others { 600 } else { u64::MAX },
        total_disk: if room.others { 1500 } else { u64::MAX },
        ..limits(room.memory, room.disk)
    };
    recordings(&replay, disk)
}

/// What a second attempt may end in, after it has read everything that it could.
fn judge(sending: &Sending, room: &Room, got: &Got, end: &End) -> Result<(), TestCaseError> {
    prop_assert!(
        sending.body.starts_with(&got.data),
        "each byte once and in order"
    );
    let all = got.data.len() == sending.body.len();
    match end {
        End::Whole => {
            prop_assert!(all, "{} of {}", got.data.len(), sending.body.len());
            prop_assert_eq!(&got.trailers, &sending.trailers);
            prop_assert!(!matches!(
                sending.steps.last(),
                Some(Step::Leaves | Step::Stops)
            ));
        }
        End::Failed(OutgoingError::Client(_)) => {
            prop_assert!(all && matches!(sending.steps.last(), Some(Step::Leaves)));
        }
        End::Failed(OutgoingError::Unreadable(_)) => prop_assert!(room.gives.is_some()),
        End::Stopped => prop_assert!(all && matches!(sending.steps.last(), Some(Step::Stops))),
        End::Enough | End::Failed(OutgoingError::Gone | OutgoingError::Lost(_)) => {
            prop_assert!(false, "{:?}", end);
        }
    }
    Ok(())
}

async fn replay_after(frames: usize, sending: &Sending, room: &Room) -> Result<(), TestCaseError> {
    let recordings = recordings_in(room);
    let recording = shared(sending.steps.clone(), sending.length, &recordings);
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    let end = read(&mut first, frames, &mut got).await;
    prop_assert!(
        sending.body.starts_with(&got.data),
        "each byte once and in order"
    );
    let lost = recording.borrow().lost();
    let broke_off = matches!(end, End::Failed(_));
    let announced_too_much = sending
        .length
        .is_some_and(|length| !room.holds(length as usize));
    match lost {
        Some(Lost::Gone) => prop_assert!(broke_off),
        Some(Lost::TooLarge) => {
            prop_assert!(announced_too_much || !room.holds(got.data.len()));
        }
        Some(Lost::Crowded) => prop_assert!(room.others),
        Some(Lost::Disk) => prop_assert!(!room.directory || room.takes.is_some()),
        Some(Lost::Answered) => prop_assert!(false, "it was not"),
        None => prop_assert!(!broke_off),
    }
    let held = room.is_healthy() && room.holds(got.data.len()) && !announced_too_much;
    prop_assert!(lost.is_none() || broke_off || !held, "{:?}", lost);
    if lost.is_none() {
        recording.borrow_mut().pause();
        let (mut second, mut again) = (Reader::new(&recording), Got::default());
        let end = read_all(&mut second, &mut again).await;
        judge(sending, room, &again, &end)?;
    }
    drop((first, recording));
    settled(&recordings).await;
    Ok(())
}

async fn resume_after(
    frames: [usize; 2],
    sending: &Sending,
    room: &Room,
) -> Result<(), TestCaseError> {
    let recordings = recordings_in(room);
    let recording = shared(sending.steps.clone(), sending.length, &recordings);
    let (mut first, mut got) = (Reader::new(&recording), Got::default());
    if !matches!(read(&mut first, frames[0], &mut got).await, End::Enough) {
        return Ok(());
    }
    recording.borrow_mut().pause();
    if recording.borrow().lost().is_none() {
        let (mut second, mut again) = (Reader::new(&recording), Got::default());
        read(&mut second, frames[1], &mut again).await;
    }
    recording.borrow_mut().resume();
    match read_all(&mut first, &mut got).await {
        // The second attempt has led past the limits, or has met the client's end.
        End::Failed(OutgoingError::Lost(_) | OutgoingError::Gone) => {}
        end => judge(sending, room, &got, &end)?,
    }
    Ok(())
}

proptest! {
    #[test]
    fn f04_f05_a_replay_is_the_body_or_does_not_happen(sending in sending(), room in room(), frames in 0..20_usize) {
        RUNTIME.block_on(replay_after(frames, &sending, &room))?;
    }

    #[test]
    fn f05_f06_an_attempt_that_goes_on_after_a_replay_sends_each_byte_once(
        sending in sending(),
        room in room(),
        first in 0..12_usize,
        second in 0..20_usize,
    ) {
        RUNTIME.block_on(resume_after([first, second], &sending, &room))?;
    }
}
