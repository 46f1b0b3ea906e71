//! Which file a command means, as execvp(3) finds it, before anything is begun for it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// Where a command is looked for without `PATH` (`_PATH_DEFPATH`).
const USUAL: &str = "/usr/bin:/bin";

/// A file that can be run.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// As the person wrote it; the program sees it as its own name.
    pub(super) name: OsString,
}

/// Why a program is not run. The exit codes are those of POSIX (env, section "Exit status").
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRun {
    #[error("there is no program {0:?}; give the path of one, or the name of one in PATH")]
    NotFound(OsString),
    #[error("cannot run {}", .0.display())]
    CannotRun(PathBuf, #[source] io::Error),
}

impl NotRun {
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 127,
            Self::CannotRun(..) => 126,
        }
    }
}

impl Program {
    pub(super) fn find(name: &OsStr) -> Result<Self, NotRun> {
        Self::find_in(name, env::var_os("PATH").as_deref())
    }

    fn find_in(name: &OsStr, path: Option<&OsStr>) -> Result<Self, NotRun> {
        let found = |path| Self {
            path,
            name: name.to_owned(),
        };
        if name.as_encoded_bytes().contains(&b'/') {
            let path = PathBuf::from(name);
            return match why_not(&path) {
                None => Ok(found(path)),
                Some(error) if is_missing(&error) => Err(NotRun::NotFound(name.to_owned())),
                Some(error) => Err(NotRun::CannotRun(path, error)),
            };
        }
        let mut refused = None;
        for directory in env::split_paths(path.unwrap_or(OsStr::new(USUAL))) {
            // An empty part of it is the current directory.
            let path = match directory.as_os_str().is_empty() {
                true => Path::new(".").join(name),
                false => directory.join(name),
            };
            match why_not(&path) {
                None if !name.is_empty() => return Ok(found(path)),
                Some(error) if !is_missing(&error) && !name.is_empty() => {
                    refused.get_or_insert(NotRun::CannotRun(path, error));
                }
                _ => {}
            }
        }
        Err(refused.unwrap_or_else(|| NotRun::NotFound(name.to_owned())))
    }
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn why_not(path: &Path) -> Option<io::Error> {
    match path.metadata() {
        Err(error) => Some(error),
        Ok(metadata) if metadata.is_dir() => Some(io::ErrorKind::IsADirectory.into()),
        Ok(metadata) if !metadata.is_file() => Some(io::ErrorKind::PermissionDenied.into()),
        Ok(_) => access(path, Access::EXEC_OK).err().map(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_command_is_found_as_the_shell_finds_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
        for (parent, file, mode) in [
            (&first, "plain", 0o600),
            (&second, "plain", 0o700),
            (&first, "other", 0o600),
        ] {
            fs::create_dir_all(parent).expect("made");
            fs::write(parent.join(file), "").expect("written");
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(parent.join(file), permissions).expect("chmod");
        }
        fs::create_dir(first.join("folder")).expect("made");
        let path = env::join_paths([&first, &second]).expect("a list");
        let find = |name: &str| Program::find_in(OsStr::new(name), Some(&path));
        let found = find("plain").expect("in the second");
        assert_eq!(
            (found.path, found.name),
            (second.join("plain"), "plain".into())
        );
        for (name, code) in [("other", 126), ("folder", 126), ("none", 127), ("", 127)] {
            assert_eq!(find(name).expect_err(name).exit_code(), code, "{name}");
        }
        let at = |path: PathBuf| Program::find_in(path.as_os_str(), None);
        assert!(at(second.join("plain")).is_ok());
        for (path, code) in [
            (first.join("plain"), 126),
            (first.clone(), 126),
            (first.join("none"), 127),
            (first.join("plain/below"), 127),
        ] {
            assert_eq!(at(path).expect_err("no program").exit_code(), code);
        }
    }
}
