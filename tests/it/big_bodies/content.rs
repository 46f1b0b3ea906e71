//! Content that both ends know, so that neither has to keep it.

use crate::replay::bytes;

/// What is written and read at once.
const BLOCK: usize = 64 << 10;
/// Each of these begins with its number, so that none can be lost, doubled or moved unseen.
const SECTOR: usize = 512;
/// Enough for a buffer to grow to its size. Every length is a multiple of a block.
pub(super) const LEAST: u64 = 1 << 20;

/// As much of the content as has passed.
pub(super) struct Content {
    block: Vec<u8>,
    passed: u64,
}

impl Content {
    pub(super) fn new() -> Self {
        Self {
            block: bytes(BLOCK),
            passed: 0,
        }
    }

    /// How many bytes have passed.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// The next block of it.
    pub(super) fn next_block(&mut self) -> &[u8] {
        self.turn_over();
        self.passed += BLOCK as u64;
        &self.block
    }

    /// Sees that `bytes` are the next of it.
    #[track_caller]
    pub(super) fn check(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = (self.passed % BLOCK as u64) as usize;
            if at == 0 {
                self.turn_over();
            }
            let (now, rest) = bytes.split_at(bytes.len().min(BLOCK - at));
            assert!(
                now == &self.block[at..at + now.len()],
                "other content within {} bytes from {} on",
                now.len(),
                self.passed
            );
            self.passed += now.len() as u64;
            bytes = rest;
        }
    }

    fn turn_over(&mut self) {
        let first = self.passed / SECTOR as u64;
        for (number, sector) in (first..).zip(self.block.chunks_exact_mut(SECTOR)) {
            sector[..8].copy_from_slice(&number.to_be_bytes());
        }
    }
}

#[test]
#[should_panic(expected = "other content within 512 bytes from 65536 on")]
fn a_sector_in_the_place_of_another_is_noticed() {
    let mut sent = Content::new();
    let mut received = Content::new();
    received.check(sent.next_block());
    let next = sent.next_block().to_vec();
    received.check(&next[SECTOR..][..SECTOR]);
}
