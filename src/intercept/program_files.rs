//! The files that the variables name: what programs are to trust, and what some of them need beside.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::config::Environment;

/// What Java's trust store is opened with. It keeps nothing secret: certificates are public.
pub const JAVA_PASSWORD: &str = "changeit";

/// Has a Node without proxies of its own find the way; of what it is made is in the file.
const NODE: &str = include_str!("node.js");

/// Larger than any list of certificates, small enough that a wrong file does no harm.
const LARGEST: u64 = 8 << 20;

/// Where the files lie.
#[derive(Clone, Debug)]
pub struct Files {
    /// Certificates in PEM: the system's, those that were trusted already, and ours.
    pub bundle: PathBuf,
    /// The same for Java, in PKCS #12.
    pub java: PathBuf,
    /// What Node loads before the program.
    pub node: PathBuf,
    /// The settings of wget.
    pub wgetrc: PathBuf,
    /// The directory of a file with settings of PHP.
    pub php: PathBuf,
}

/// What stands in them, as far as it is not known here.
#[derive(Debug)]
pub struct Contents<'a> {
    /// Certificates in PEM.
    pub bundle: &'a [u8],
    /// The same in PKCS #12, behind [`JAVA_PASSWORD`].
    pub java: &'a [u8],
    /// The hosts whose connections are intercepted.
    pub hosts: &'a [String],
}

impl Files {
    /// Their names in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            bundle: directory.join("trusted.pem"),
            java: directory.join("trusted.p12"),
            node: directory.join("node.js"),
            wgetrc: directory.join("wgetrc"),
            php: directory.join("php"),
        }
    }

    /// Writes all of them, readable by this user alone, each whole or not at all. The settings of wget that `present`
    /// leads to are taken over as far as they can be read.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn write(&self, contents: &Contents<'_>, present: &dyn Environment) -> io::Result<()> {
        replace(&self.bundle, contents.bundle)?;
        replace(&self.java, contents.java)?;
        let hosts = serde_json::to_string(contents.hosts)?;
        replace(&self.node, NODE.replace("[/* HOSTS */]", &hosts).as_bytes())?;
        replace(&self.wgetrc, &wgetrc(&self.bundle, present))?;
        match std::fs::create_dir(&self.php) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let bundle = self.bundle.display();
        // libcurl in PHP and its own streams read no variable.
        let ini = format!("curl.cainfo = \"{bundle}\"\nopenssl.cafile = \"{bundle}\"\n");
        replace(&self.php.join("lucid-proxy.ini"), ini.as_bytes())
    }
}

/// The person's own settings, and what to trust; of two lines the later one counts.
fn wgetrc(bundle: &Path, present: &dyn Environment) -> Vec<u8> {
    let in_home = || Some(PathBuf::from(present.var("HOME")?).join(".wgetrc"));
    let own = present.var("WGETRC").map(PathBuf::from).or_else(in_home);
    let mut text = own.and_then(|own| read(&own).ok()).unwrap_or_default();
    text.extend(format!("\nca_certificate = {}\n", bundle.display()).bytes());
    text
}

fn read(file: &Path) -> io::Result<Vec<u8>> {
    if !file.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut content = Vec::new();
    std::fs::File::open(file)?
        .take(LARGEST)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// A program that starts meanwhile reads the old file or the new one.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut draft = tempfile::Builder::new()
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    draft.write_all(content)?;
    draft.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;

    const PEM: &[u8] = b"certificates";

    fn write(directory: &Path, present: &[(&str, &Path)]) -> Files {
        let of = |(name, value): &(&str, &Path)| ((*name).to_owned(), value.display().to_string());
        let present: BTreeMap<_, _> = present.iter().map(of).collect();
        let files = Files::in_directory(directory);
        let contents = Contents {
            bundle: PEM,
            java: b"p12",
            hosts: &["api.lucid.co".to_owned()],
        };
        files.write(&contents, &present).expect("written");
        files
    }

    fn content(path: &Path) -> String {
        String::from_utf8(fs::read(path).expect("a file")).expect("text")
    }

    #[test]
    fn what_a_killed_process_of_this_number_left_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        let bundle = Files::in_directory(directory.path()).bundle;
        let left = format!("{}.{}.tmp", bundle.display(), std::process::id());
        fs::write(left, "half").expect("written");
        let files = write(directory.path(), &[]);
        assert_eq!(fs::read(files.bundle).expect("a file"), PEM);
    }

    #[test]
    fn files_are_private_and_can_be_written_again() {
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path(), &[]);
        let files = write(directory.path(), &[]);
        let ini = files.php.join("lucid-proxy.ini");
        for file in [&files.bundle, &files.java, &files.node, &files.wgetrc, &ini] {
            let mode = fs::metadata(file).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        assert_eq!(content(&files.bundle).as_bytes(), PEM);
        assert!(content(&files.node).contains("[\"api.lucid.co\"]"));
        let expected = format!("curl.cainfo = \"{}\"", files.bundle.display());
        assert!(content(&ini).contains(&expected));
        let all = fs::read_dir(directory.path()).expect("a directory").count();
        assert_eq!(all, 5, "and nothing else");
    }

    #[test]
    fn a_persons_own_settings_of_wget_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let own = directory.path().join(".wgetrc");
        fs::write(&own, "timeout = 5").expect("written");
        for (name, value) in [("WGETRC", own.as_path()), ("HOME", directory.path())] {
            let files = write(directory.path(), &[(name, value)]);
            let expected = format!("timeout = 5\nca_certificate = {}\n", files.bundle.display());
            assert_eq!(content(&files.wgetrc), expected, "{name}");
        }
    }
}
