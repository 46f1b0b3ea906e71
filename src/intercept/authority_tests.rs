use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;

const HOSTS: [&str; 2] = ["api.lucid.co", "api.lucid.app"];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn hosts() -> Vec<String> {
    HOSTS.map(str::to_owned).to_vec()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_900_000_000)
}

fn open(directory: &Path, now: SystemTime) -> Arc<Authority> {
    Authority::open(directory, &hosts(), now).expect("an authority")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("there").permissions().mode() & 0o777
}

#[test]
fn ix_it_is_made_on_first_use_private_and_found_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("below/state");
    let made = open(&state, now());
    let files = Files::of(&state);
    for path in [files.key(), files.certificate()] {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&state), 0o700);
    let written = fs::read_to_string(made.path()).expect("there");
    assert_eq!(written, made.certificate_pem());
    assert!(!written.contains("PRIVATE KEY"));
    let again = open(&state, now() + DAY);
    assert_eq!(again.certificate(), made.certificate());
    assert_eq!(again.hosts(), HOSTS);
    assert_eq!(again.validity(), made.validity());
    assert_eq!(again.subject(), made.subject());
}
