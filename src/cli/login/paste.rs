//! What a person pastes: lines of standard input.

use std::io::{BufRead, Read};

use tokio::sync::mpsc;

/// Longer than an address with a code of 4 KiB, encoded.
const LONGEST: u64 = 64 << 10;

/// The lines of standard input as they come; `None` at its end.
///
/// A thread reads them, since reading a terminal cannot be cancelled. It ends with the process, or when a line comes
/// that nobody waits for.
pub(super) fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        while let Some(line) = line(&mut input) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines
}

fn line(input: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = input.take(LONGEST).read_until(b'\n', &mut line);
    let has_ended = read.map_or(true, |length| length == 0);
    (!has_ended).then(|| String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_one_by_one_and_none_is_without_end() {
        let mut input: &[u8] = b"one\n\xff\nlast";
        let lines: Vec<_> = std::iter::from_fn(|| line(&mut input)).collect();
        assert_eq!(lines, ["one\n", "\u{fffd}\n", "last"]);
        let long = vec![b'x'; 3 * LONGEST as usize];
        let first = line(&mut long.as_slice()).expect("a line");
        assert_eq!(first.len() as u64, LONGEST);
    }
}
