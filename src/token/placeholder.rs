//! What a program that refreshes by itself is given in the place of tokens (rule F11).
//!
//! A placeholder says what it is to whoever finds it, is worth nothing anywhere and holds nothing of a real token. It is
//! known by its form, so that any proxy knows those of any other, and itself after a restart.

/// Lucid's own tokens begin with `oauth2-`.
const ACCESS: &str = "lucid-proxy-placeholder-access-";
const REFRESH: &str = "lucid-proxy-placeholder-refresh-";

/// The error code by which a proxy refuses to answer a `lucid-proxy` in the token endpoint's place, with status 421: what
/// that one asks for is a real pair, and a placeholder stored over it would lose the login.
pub(crate) const MISDIRECTED: &str = "misdirected_request";

/// Which token it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// What the program sends with its requests.
    Access,
    /// What it sends for the next pair.
    Refresh,
}

impl Placeholder {
    /// The one for a generation. The number is for people, and makes the next one another, as a real one would be.
    pub fn token(self, generation: u64) -> String {
        format!("{}{generation}", self.prefix())
    }

    /// Which placeholder a text is; `None` where it is none.
    pub fn of(text: &str) -> Option<Self> {
        [Self::Access, Self::Refresh].into_iter().find(|kind| {
            let number = text.strip_prefix(kind.prefix());
            number.is_some_and(|number| number.parse::<u64>().is_ok())
        })
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Access => ACCESS,
            Self::Refresh => REFRESH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::{Secret, bearer_header, is_one_word};

    #[test]
    fn f11_a_placeholder_is_known_by_its_form_and_is_no_token_of_lucids() {
        for generation in [0, 7, u64::MAX] {
            for kind in [Placeholder::Access, Placeholder::Refresh] {
                let token = kind.token(generation);
                assert_eq!(Placeholder::of(&token), Some(kind), "{token}");
                assert!(!token.starts_with("oauth2-"), "{token}");
                let secret = Secret::from(token);
                assert!(is_one_word(&secret) && bearer_header(&secret).is_ok());
            }
        }
        assert_ne!(Placeholder::Access.token(1), Placeholder::Access.token(2));
        for other in [
            "",
            "oauth2-RT",
            "lucid-proxy-placeholder-access-",
            "lucid-proxy-placeholder-access-x",
            "lucid-proxy-placeholder-refresh--1",
            " lucid-proxy-placeholder-refresh-1",
            "lucid-proxy-placeholder-refresh-1 ",
        ] {
            assert_eq!(Placeholder::of(other), None, "{other:?}");
        }
    }
}
