//! PEM (RFC 7468), written so that a key leaves no copy behind.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::secret::Zeroizing;

/// What stands in a block with a certificate.
pub(super) const CERTIFICATE: &str = "CERTIFICATE";
/// What stands in a block with a private key in PKCS#8.
pub(super) const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Characters of a line (RFC 7468 section 2).
const LINE: usize = 64;

/// One block: its label's lines around `der` in lines of base64.
pub(super) fn block(label: &str, der: &[u8]) -> Zeroizing<String> {
    let lines = der.len() / (LINE / 4 * 3) + 1;
    // With room for all of it: where it has to grow, it leaves a copy behind.
    let room = lines * (LINE + 1) + 2 * (label.len() + "-----BEGIN -----\n".len());
    let mut text = Zeroizing::new(String::with_capacity(room));
    for word in ["-----BEGIN ", label, "-----\n"] {
        text.push_str(word);
    }
    for piece in der.chunks(LINE / 4 * 3) {
        STANDARD.encode_string(piece, &mut text);
        text.push('\n');
    }
    for word in ["-----END ", label, "-----\n"] {
        text.push_str(word);
    }
    text
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn s06_a_block_is_read_back_and_was_written_without_growing() {
        for length in [0, 1, 47, 48, 49, 96, 138, 1000] {
            let der: Vec<u8> = (0..length).map(|it| (it % 251) as u8).collect();
            let text = block(PRIVATE_KEY, &der);
            let room = (length / 48 + 1) * 65 + 2 * 28;
            assert!(text.len() <= room && text.capacity() == room, "{length}");
            assert!(text.lines().all(|line| line.len() <= 64), "{}", *text);
            if length > 0 {
                let read = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).expect("PEM");
                assert_eq!(read.secret_pkcs8_der(), der);
            }
        }
    }
}
