//! Who may read the file of a secret.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is to be said of a file that everybody may read although it holds a `secret`; `None` where not everybody may.
///
/// A file that the configuration names is its writer's to protect; but secrets are often copied without a thought of who
/// may read the copy. A group may: Debian's `ssl-cert` is made for that.
pub(crate) fn warning(secret: &str, file: &Path) -> Option<String> {
    let is_open = fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o007 != 0);
    is_open.then(|| {
        let file = file.display();
        format!("every user of this machine may read the {secret} {file}; run chmod o= {file}")
    })
}
