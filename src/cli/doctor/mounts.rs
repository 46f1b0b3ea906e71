//! What is mounted where a file lies (proc_pid_mountinfo(5)); elsewhere than on Linux this is not known.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The type of the file system, such as `ext4`.
    pub(super) kind: String,
    /// Whether it is exactly the path that was asked about.
    pub(super) is_the_path: bool,
}

/// The mount on which `path` lies; it need not exist, its directory must be written without links.
pub(super) fn of(path: &Path) -> Option<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    find(&table, path)
}

/// The deepest mount above `path`; of several at one place the last one covers the others.
fn find(table: &[u8], path: &Path) -> Option<Mount> {
    let mut found: Option<(usize, Mount)> = None;
    for line in table.split(|byte| *byte == b'\n') {
        let Some((point, kind)) = fields(line) else {
            continue;
        };
        let point = Path::new(std::ffi::OsStr::from_bytes(&point));
        let depth = point.components().count();
        let is_deeper = found.as_ref().is_none_or(|(known, _)| depth >= *known);
        if path.starts_with(point) && is_deeper {
            let is_the_path = path == point;
            found = Some((depth, Mount { kind, is_the_path }));
        }
    }
    found.map(|(_, mount)| mount)
}

/// Where it is mounted, and its type.
fn fields(line: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    // Optional fields end with a hyphen.
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some((unescape(point), String::from_utf8_lossy(kind).into_owned()))
}

/// Space, tab, line break and backslash are written in octal.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| byte == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &behind[3..];
            }
            None => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /state rw - tmpfs tmpfs rw
31 30 8:1 /x /state/token_info.json rw,relatime shared:1 master:2 - ext4 /dev/sda1 rw
32 22 0:26 / /with\\040space rw - nfs4 server:/x rw
33 22 0:27 / /state2 ro - overlay overlay rw
odd line
";

    #[test]
    fn the_deepest_mount_above_a_path_is_found() {
        let found = |path: &str| {
            let mount = find(TABLE, Path::new(path)).expect("a mount");
            (mount.kind, mount.is_the_path)
        };
        assert_eq!(found("/home/x"), ("ext4".to_owned(), false));
        assert_eq!(found("/state/other"), ("tmpfs".to_owned(), false));
        assert_eq!(found("/state/token_info.json"), ("ext4".to_owned(), true));
        assert_eq!(found("/with space/x"), ("nfs4".to_owned(), false));
        assert_eq!(found("/state2/x"), ("overlay".to_owned(), false));
    }

    #[test]
    fn s08_a_table_in_another_form_is_no_panic() {
        assert_eq!(find(b"", Path::new("/x")), None);
        assert_eq!(find(b"1 2 3 4 /\\0 - \\", Path::new("/x")), None);
        assert_eq!(unescape(b"\\"), b"\\");
        assert_eq!(unescape(b"\\999\\40"), b"\\999\\40");
    }
}
