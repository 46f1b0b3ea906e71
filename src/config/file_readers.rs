//! Who may read the file of a secret.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::process::geteuid;

/// What is to be said of a file that everybody may read although it holds a `secret`; `None` where not everybody may, or
/// nothing can be done about it.
///
/// A file that the configuration names is its writer's to protect; but secrets are often copied without a thought of who
/// may read the copy. A group may: Debian's `ssl-cert` is made for that.
pub(crate) fn warning(secret: &str, file: &Path) -> Option<String> {
    let metadata = fs::metadata(file).ok()?;
    if metadata.mode() & 0o004 == 0 || !is_reached_by_all(file) || is_read_only(file) {
        return None;
    }
    let advice = advice(&metadata, file);
    let file = file.display();
    Some(format!(
        "every user of this machine may read the {secret} {file}; {advice}"
    ))
}

/// Whether every directory on the way lets everybody through (path_resolution(7)). Links lead where the file is.
fn is_reached_by_all(file: &Path) -> bool {
    let is_open = |directory: &Path| {
        fs::metadata(directory).is_ok_and(|directory| directory.mode() & 0o001 != 0)
    };
    fs::canonicalize(file).is_ok_and(|file| file.ancestors().skip(1).all(is_open))
}

/// As containers get secrets, often with mode 0444: who made the mount has decided, and a word at every start helps nobody.
fn is_read_only(file: &Path) -> bool {
    statvfs(file).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// A file of another user's may be read here by just the right that should go.
fn advice(metadata: &Metadata, file: &Path) -> String {
    let user = geteuid();
    match user.is_root() || metadata.uid() == user.as_raw() {
        true => format!("run chmod o= {}", file.display()),
        false => "it is another user's: have that one, or root, leave it to you alone".to_owned(),
    }
}
