//! Scopes: which of those that are wanted a login does not have.

/// The scopes of `wanted` that `granted` does not cover. None where it is not known what was granted.
pub fn missing(wanted: &[String], granted: &[String]) -> Vec<String> {
    if granted.is_empty() {
        return Vec::new();
    }
    let is_covered = |scope: &str| granted.iter().any(|granted| covers(granted, scope));
    let missing = wanted.iter().filter(|scope| !is_covered(scope));
    missing.cloned().collect()
}

/// What a person is told about scopes that a login lacks.
pub fn advice(missing: &[String]) -> String {
    format!(
        "the login does not have the scopes {}, which the configuration asks for; to get them: lucid-proxy login (the old login goes on until the new one is there)",
        missing.join(" ")
    )
}

/// A parent scope includes its children (Lucid's documentation): `a.b` includes `a.b.c` and `a.b:readonly`. Rights of an
/// administrator are more than their parent's, and only an administrator's scope includes them.
fn covers(granted: &str, scope: &str) -> bool {
    let Some(rest) = scope.strip_prefix(granted) else {
        return false;
    };
    rest.is_empty() || rest.starts_with(['.', ':']) && !rest.contains(":admin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_includes_its_children_but_no_administrator() {
        let parent = "lucidchart.document.content";
        for child in ["", ":readonly", ".share", ".share.link:readonly"] {
            assert!(covers(parent, &format!("{parent}{child}")), "{child}");
        }
        for other in [":admin", ":admin.readonly", "s", "s.share"] {
            assert!(!covers(parent, &format!("{parent}{other}")), "{other}");
        }
        assert!(covers("folder:admin", "folder:admin.readonly"));
        assert!(!covers("folder:readonly", "folder"));
    }

    #[test]
    fn what_is_not_known_to_be_granted_is_not_called_missing() {
        let wanted = ["offline_access", "folder"].map(str::to_owned);
        assert!(missing(&wanted, &[]).is_empty());
        assert_eq!(missing(&wanted, &["offline_access".to_owned()]), ["folder"]);
    }
}
