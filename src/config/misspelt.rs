//! What somebody who wrote an unknown key may have meant.

/// The accepted key that looks like the unknown one, if one does.
pub(super) fn meant<'a>(unknown: &str, accepted: &[&'a str]) -> Option<&'a str> {
    let near = accepted
        .iter()
        .map(|key| (distance(unknown, key), *key))
        .min()?;
    let (changes, key) = near;
    // Short keys look alike without being meant.
    (changes <= 2 && changes * 3 <= key.len()).then_some(key)
}

/// How many characters have to be added, left out or replaced, or neighbours exchanged, to make one of the other
/// (optimal string alignment).
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    // No key is longer; a text without end would take a time without end.
    if one.len() > 64 {
        return usize::MAX;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, theirs) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != theirs);
            let mut least = replaced.min(last[column + 1] + 1).min(line[column] + 1);
            let swaps = row > 0 && column > 0 && *letter == other[column - 1];
            if swaps && one[row - 1] == *theirs {
                least = least.min(before[column - 1] + 1);
            }
            line.push(least);
        }
        before = std::mem::replace(&mut last, line);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_meant_that_is_two_changes_away_at_the_most() {
        for (one, other, changes) in [
            ("", "", 0),
            ("", "abc", 3),
            ("key_sha265", "key_sha256", 1),
            ("kye", "key", 1),
            ("ab", "ba", 1),
            ("lisn", "listen", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), changes, "{one} {other}");
            assert_eq!(distance(other, one), changes, "{one} {other}");
        }
        let accepted = ["key", "key_env", "key_sha256", "read_only", "url"];
        assert_eq!(meant("key_sha265", &accepted), Some("key_sha256"));
        assert_eq!(meant("readonly", &accepted), Some("read_only"));
        assert_eq!(meant("kye", &accepted), Some("key"));
        for other in ["colour", "u", "key_sha", "key_shaxxx", &"key".repeat(50)] {
            assert_eq!(meant(other, &accepted), None, "{other}");
        }
        assert_eq!(meant("a", &[]), None);
    }
}
