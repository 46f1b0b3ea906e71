//! Values that must never be printed.
//!
//! [`Secret`] has no `Display` and no `Serialize`, prints as a placeholder under `Debug`, and is wiped when dropped.
//! [`Zeroizing`] wipes what is not text, such as a private key, and keeps nobody from printing it.
//! What leaves this module as a header value is marked sensitive, so that hyper and tracing print it as `Sensitive`.

use http::HeaderValue;
use http::header::InvalidHeaderValue;

pub use secrecy::zeroize::Zeroizing;
pub use secrecy::{ExposeSecret, SecretString as Secret};

/// `Bearer <token>` as a header value marked sensitive.
///
/// # Errors
///
/// When the token has a character that no header value may carry (RFC 9110 section 5.5).
pub fn bearer_header(token: &Secret) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a token can be sent and kept: one word of visible ASCII (RFC 6750 section 2.1 allows less, Lucid promises no
/// more).
pub fn is_one_word(token: &Secret) -> bool {
    let token = token.expose_secret();
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s06_neither_a_secret_nor_its_header_shows_under_debug() {
        let secret = Secret::from("oauth2-marked");
        let header = bearer_header(&secret).expect("visible ASCII");
        assert_eq!(
            header.as_bytes(),
            b"Bearer oauth2-marked",
            "the value itself is whole"
        );
        let printed = format!("{secret:?} {header:?}");
        assert!(!printed.contains("marked"), "{printed}");
    }

    #[test]
    fn s08_a_token_with_a_line_break_is_an_error_and_no_panic() {
        assert!(bearer_header(&Secret::from("a\r\nX-Evil: 1")).is_err());
    }
}
