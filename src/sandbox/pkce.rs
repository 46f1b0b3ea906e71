//! Proof Key for Code Exchange (RFC 7636): what an authorization request promises, and whether a verifier keeps it.

use aws_lc_rs::digest::{self, SHA256};

/// The challenge of one authorization request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// The verifier itself.
    Plain(String),
    /// The verifier's SHA-256 in base64url without padding.
    S256(String),
}

impl Challenge {
    /// Reads `code_challenge` and `code_challenge_method`; without a method it is `plain` (section 4.3).
    pub(super) fn parse(challenge: &str, method: Option<&str>) -> Result<Challenge, &'static str> {
        let challenge_text = challenge.to_owned();
        match method.unwrap_or("plain") {
            "plain" if is_verifier(challenge) => Ok(Challenge::Plain(challenge_text)),
            "plain" => Err("a plain code_challenge has 43 to 128 unreserved characters"),
            "S256" if is_hash(challenge) => Ok(Challenge::S256(challenge_text)),
            "S256" => Err("an S256 code_challenge has 43 characters of base64url without padding"),
            _ => Err("the code_challenge_method is neither S256 nor plain"),
        }
    }

    /// Whether `verifier` is well-formed and is what the challenge was made from (section 4.6).
    pub(super) fn accepts(&self, verifier: &str) -> bool {
        is_verifier(verifier)
            && match self {
                Challenge::Plain(challenge) => challenge == verifier,
                Challenge::S256(challenge) => {
                    *challenge == base64url(digest::digest(&SHA256, verifier.as_bytes()).as_ref())
                }
            }
    }
}

/// Section 4.1: 43 to 128 unreserved characters.
fn is_verifier(text: &str) -> bool {
    (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// 32 bytes in base64url without padding.
fn is_hash(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let encode = |group: &[u8]| {
        let mut bits = 0;
        for index in 0..3 {
            bits = bits << 8 | usize::from(group.get(index).copied().unwrap_or(0));
        }
        // Three bytes make four characters, two make three, one makes two.
        (0..=group.len()).map(move |index| char::from(ALPHABET[bits >> (18 - 6 * index) & 63]))
    };
    bytes.chunks(3).flat_map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn the_example_of_the_rfc_is_accepted_and_no_other_verifier() {
        let challenge = Challenge::parse(CHALLENGE, Some("S256")).expect("well-formed");
        assert!(challenge.accepts(VERIFIER));
        assert!(!challenge.accepts(CHALLENGE));
        assert!(!challenge.accepts(&VERIFIER.replace('d', "e")));
    }

    #[test]
    fn a_plain_challenge_is_the_verifier() {
        let challenge = Challenge::parse(VERIFIER, None).expect("well-formed");
        assert_eq!(challenge, Challenge::Plain(VERIFIER.to_owned()));
        assert!(challenge.accepts(VERIFIER));
        assert!(!challenge.accepts(CHALLENGE));
    }

    #[test]
    fn a_malformed_verifier_is_not_accepted_even_if_its_hash_fits() {
        let hash = base64url(digest::digest(&SHA256, b"short").as_ref());
        let challenge = Challenge::parse(&hash, Some("S256")).expect("well-formed");
        assert!(!challenge.accepts("short"));
    }

    #[test]
    fn bad_challenges_are_told_apart() {
        let long = "x".repeat(129);
        for (challenge, method) in [
            ("", Some("S256")),
            (VERIFIER, Some("s256")),
            (VERIFIER, Some("")),
            ("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM", Some("S256")),
            ("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM=", Some("S256")),
            ("too-short", None),
            (&long, Some("plain")),
        ] {
            assert!(
                Challenge::parse(challenge, method).is_err(),
                "{challenge} {method:?}"
            );
        }
    }

    /// RFC 4648, section 10.
    #[test]
    fn groups_of_every_length_are_encoded() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }
}
