//! Users and groups by name.
//!
//! Names are looked up in the files of this machine: asking the C library, which could also find those of a directory
//! service, is not to be had without unsafe code. A number always works.

/// The number that nobody has: chown(2) reads it as "leave it as it is".
pub(super) const NOBODY_AT_ALL: u32 = u32::MAX;

/// A user's number, by name or as it stands.
pub(super) fn user(name: &str) -> Option<u32> {
    number(name, "/etc/passwd")
}

/// A group's number, by name or as it stands.
pub(super) fn group(name: &str) -> Option<u32> {
    number(name, "/etc/group")
}

fn number(name: &str, file: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    find(name, &std::fs::read_to_string(file).ok()?)
}

/// In passwd(5) and group(5) alike the name is the first field and the number the third.
fn find(name: &str, accounts: &str) -> Option<u32> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(name) && !name.is_empty();
        fields.nth(1).filter(|_| found)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_first_field_and_its_number_the_third() {
        let accounts =
            "root:x:0:0:root:/root:/bin/sh\n# comment\n\n:x:7:\nwww-data:x:33:33\nodd:x:many\n";
        for (name, number) in [
            ("root", Some(0)),
            ("www-data", Some(33)),
            ("www", None),
            ("odd", None),
            ("", None),
        ] {
            assert_eq!(find(name, accounts), number, "{name}");
        }
    }

    #[test]
    fn a_number_needs_no_file() {
        assert_eq!(user("4711"), Some(4711));
        assert_eq!(group("0"), Some(0));
        assert_eq!(user("-1"), None);
        assert_eq!(group("no such group"), None);
    }
}
