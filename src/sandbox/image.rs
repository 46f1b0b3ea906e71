//! Exported images: one grey pixel, valid and as large as asked for.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// The image formats that Lucid exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Png => "image/png",
            Format::Jpeg => "image/jpeg",
        }
    }

    /// The smallest image, split where padding may go.
    fn ends(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Format::Png => (&PNG_START, &PNG_END),
            Format::Jpeg => (&JPEG_START, &JPEG_END),
        }
    }

    /// The bytes of a padding block that hold no padding.
    fn overhead(self) -> usize {
        match self {
            Format::Png => 12,
            Format::Jpeg => 4,
        }
    }

    /// The largest padding block. JPEG writes the length in 16 bits; PNG has 31, more than anyone sends at once.
    fn largest_block(self) -> usize {
        match self {
            Format::Png => 16 * 1024 * 1024,
            Format::Jpeg => 2 + 0xffff,
        }
    }

    /// A block of `size` bytes that decoders skip.
    fn padding(self, size: usize) -> Bytes {
        let length = size - self.overhead();
        let mut block = Vec::with_capacity(size);
        match self {
            Format::Png => {
                block.extend_from_slice(
                    &u32::try_from(length)
                        .expect("below the largest block")
                        .to_be_bytes(),
                );
                // Lower case in the first, second and fourth letter: ancillary, private, safe to copy.
                block.extend_from_slice(b"paDd");
                block.resize(size - 4, 0);
                let crc = crc32(&block[4..]);
                block.extend_from_slice(&crc.to_be_bytes());
            }
            Format::Jpeg => {
                // A comment; its length includes the two bytes of the length.
                block.extend_from_slice(&[0xff, 0xfe]);
                block.extend_from_slice(
                    &u16::try_from(length + 2)
                        .expect("below the largest block")
                        .to_be_bytes(),
                );
                block.resize(size, 0);
            }
        }
        block.into()
    }

    /// An image of at least `least` bytes in blocks of about `block` bytes.
    fn image(self, least: usize, block: usize) -> Vec<Bytes> {
        let (start, end) = self.ends();
        let block = block.clamp(self.overhead() + 1, self.largest_block());
        let mut blocks = vec![Bytes::from_static(start)];
        let padding = least.saturating_sub(start.len() + end.len());
        if padding >= block {
            let full = self.padding(block);
            blocks.extend(std::iter::repeat_n(full, padding / block));
        }
        if padding % block > 0 {
            blocks.push(self.padding((padding % block).max(self.overhead())));
        }
        blocks.push(Bytes::from_static(end));
        blocks
    }
}

/// The image made last: the check sums of a large one take longer than sending it.
#[derive(Debug, Default)]
pub(super) struct ImageCache(Mutex<Option<Made>>);

#[derive(Clone, Debug)]
struct Made {
    wish: (Format, usize, usize),
    blocks: Arc<[Bytes]>,
}

impl ImageCache {
    pub(super) fn get(&self, format: Format, least: usize, block: usize) -> Arc<[Bytes]> {
        let wish = (format, least, block);
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = last.as_ref().filter(|made| made.wish == wish) {
            return Arc::clone(&made.blocks);
        }
        let blocks: Arc<[Bytes]> = format.image(least, block).into();
        *last = Some(Made {
            wish,
            blocks: Arc::clone(&blocks),
        });
        blocks
    }
}

/// Signature and header: one pixel of eight bits of grey.
const PNG_START: [u8; 33] = [
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b,
    0x55,
];

/// The pixel and the end.
const PNG_END: [u8; 34] = [
    0x00, 0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xa8, 0x07, 0x00, 0x00, 0x81,
    0x00, 0x80, 0xd3, 0x94, 0x53, 0x4a, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42,
    0x60, 0x82,
];

/// Start of image.
const JPEG_START: [u8; 2] = [0xff, 0xd8];

/// A quantisation table of ones, a frame of one grey pixel, two Huffman tables of one code each, and a scan in which
/// both coefficients are zero.
const JPEG_END: [u8; 139] = {
    let mut bytes = [1; 139];
    let rest = [
        0xff, 0xc0, 0x00, 0x0b, 0x08, 0x00, 0x01, 0x00, 0x01, 0x01, 0x01, 0x11, 0x00, //
        0xff, 0xc4, 0x00, 0x14, 0x00, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x00, //
        0xff, 0xc4, 0x00, 0x14, 0x10, 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0x00, //
        0xff, 0xda, 0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x3f, 0x00, 0x3f, //
        0xff, 0xd9,
    ];
    let table_head = [0xff, 0xdb, 0x00, 0x43, 0x00];
    let mut at = 0;
    while at < table_head.len() {
        bytes[at] = table_head[at];
        at += 1;
    }
    let mut at = 0;
    while at < rest.len() {
        bytes[table_head.len() + 64 + at] = rest[at];
        at += 1;
    }
    bytes
};

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0xedb8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// The check sum of PNG chunks (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        CRC_TABLE[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(blocks: &[Bytes]) -> usize {
        blocks.iter().map(Bytes::len).sum()
    }

    #[test]
    fn images_have_the_size_asked_for() {
        for format in [Format::Png, Format::Jpeg] {
            for least in [500, 65_536, 1_000_000] {
                let size = size(&format.image(least, 64 * 1024));
                assert!(
                    (least..least + format.overhead()).contains(&size),
                    "{format:?} {least} {size}"
                );
            }
        }
    }

    #[test]
    fn every_chunk_of_a_png_has_the_right_check_sum() {
        let image = Format::Png.image(200_000, 64 * 1024).concat();
        let mut rest = &image[8..];
        let mut names = Vec::new();
        while !rest.is_empty() {
            let length = u32::from_be_bytes(rest[..4].try_into().expect("four bytes")) as usize;
            let (chunk, after) = rest.split_at(12 + length);
            let (body, sum) = chunk[4..].split_at(4 + length);
            assert_eq!(crc32(body).to_be_bytes(), sum);
            names.push(String::from_utf8_lossy(&body[..4]).into_owned());
            rest = after;
        }
        assert_eq!(
            names,
            ["IHDR", "paDd", "paDd", "paDd", "paDd", "IDAT", "IEND"]
        );
    }

    #[test]
    fn the_last_image_is_kept() {
        let cache = ImageCache::default();
        let first = cache.get(Format::Png, 100_000, 1000);
        assert!(Arc::ptr_eq(&first, &cache.get(Format::Png, 100_000, 1000)));
        assert!(!Arc::ptr_eq(
            &first,
            &cache.get(Format::Jpeg, 100_000, 1000)
        ));
    }
}
