//! The content of a message, of which a large one is never in memory as a whole.

use std::sync::Arc;

use tokio::io::{AsyncWrite, AsyncWriteExt};

/// How much of a large content is kept; the rest repeats it.
const BLOCK: usize = 1 << 20;

/// Bytes that can be written, and known again.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    block: Arc<[u8]>,
    length: usize,
}

impl Content {
    pub(crate) fn empty() -> Self {
        Self::from(Vec::new())
    }

    /// So many bytes without a pattern that shows within a block: what is lost, doubled or moved shows.
    pub(crate) fn noise(length: usize) -> Self {
        // xorshift64, from any seed but 0.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let block = words.take(BLOCK / 8).flatten().collect();
        Self { block, length }
    }

    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Whether these bytes are what stands at this place.
    pub(crate) fn has_at(&self, mut place: usize, mut bytes: &[u8]) -> bool {
        if place + bytes.len() > self.length {
            return false;
        }
        while !bytes.is_empty() {
            let expected = &self.block[place % self.block.len()..];
            let (now, later) = bytes.split_at(bytes.len().min(expected.len()));
            if now != &expected[..now.len()] {
                return false;
            }
            place += now.len();
            bytes = later;
        }
        true
    }

    /// Writes a head and all of this behind it; what is small in one go.
    pub(crate) async fn write_behind(
        &self,
        head: &[u8],
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        if self.length <= self.block.len() {
            return stream.write_all(&[head, &self.block].concat()).await;
        }
        stream.write_all(head).await?;
        let mut left = self.length;
        while left > 0 {
            let now = left.min(self.block.len());
            stream.write_all(&self.block[..now]).await?;
            left -= now;
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self {
            length: bytes.len(),
            block: bytes.into(),
        }
    }
}
