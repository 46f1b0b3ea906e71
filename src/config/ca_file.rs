//! Certificates that are trusted beside the system's: `upstream.ca_file`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::tls;

/// A PEM bundle of certificates, read.
#[derive(Clone, PartialEq, Eq)]
pub struct CaFile {
    path: PathBuf,
    certificates: Vec<CertificateDer<'static>>,
}

impl CaFile {
    /// Reads a bundle.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds anything but certificates that can be trusted; the message says what is
    /// wrong with which, and whether others may well be able to read it.
    pub(super) fn read(path: &Path) -> Result<Self, (String, bool)> {
        let content = std::fs::read(path).map_err(|error| {
            let is_elsewhere = error.kind() == io::ErrorKind::PermissionDenied;
            let message = format!("cannot read the file {}: {error}", path.display());
            (message, is_elsewhere)
        })?;
        Self::parse(path, &content).map_err(|message| (message, false))
    }

    fn parse(path: &Path, content: &[u8]) -> Result<Self, String> {
        let shown = path.display();
        if content.trim_ascii().is_empty() {
            return Err(format!("the file {shown} is empty"));
        }
        let mut certificates = Vec::new();
        for read in CertificateDer::pem_slice_iter(content) {
            let number = certificates.len() + 1;
            let certificate = read.ok().filter(tls::can_be_trusted);
            certificates.push(certificate.ok_or_else(|| {
                format!("certificate {number} in the file {shown} is broken; expected PEM")
            })?);
        }
        if certificates.is_empty() {
            return Err(format!(
                "the file {shown} holds no certificate; expected PEM, with a line -----BEGIN CERTIFICATE----- before each (openssl x509 -inform der -in FILE makes it from DER)"
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            certificates,
        })
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it, at least one.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaFile")
            .field("path", &self.path)
            .field("certificates", &self.certificates.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem() -> String {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        made.expect("a certificate").cert.pem()
    }

    fn read(content: &[u8]) -> Result<usize, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, content).expect("written");
        let read = CaFile::read(&path).map(|file| file.certificates().len());
        read.map_err(|(message, _)| message)
    }

    #[test]
    fn a_bundle_is_read_whole_and_other_text_in_it_is_not() {
        let (one, two) = (pem(), pem());
        let text = format!("Issuer: a company\n{one}\nIssuer: another\n{two}");
        assert_eq!(read(text.as_bytes()), Ok(2));
    }

    #[test]
    fn what_is_no_bundle_is_told() {
        let whole = pem();
        let cut = &whole[..whole.len() / 2];
        let garbled = whole.replacen("MII", "AAA", 1);
        let der = [0x30, 0x82, 0x01, 0x0a, 0x02];
        for (content, word) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"hello", "holds no certificate; expected PEM"),
            (&der, "holds no certificate; expected PEM"),
            (cut.as_bytes(), "certificate 1 in the file"),
            (garbled.as_bytes(), "certificate 1 in the file"),
            (
                (whole.clone() + &garbled).as_bytes(),
                "certificate 2 in the file",
            ),
        ] {
            let told = read(content).expect_err(word);
            assert!(told.contains(word), "{told}");
        }
        let gone = CaFile::read(Path::new("/nowhere/ca.pem")).expect_err("no file");
        assert!(
            gone.0.contains("/nowhere/ca.pem: No such file"),
            "{}",
            gone.0
        );
    }

    #[test]
    fn its_certificates_do_not_fill_the_log() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ca.pem");
        std::fs::write(&path, pem()).expect("written");
        let shown = format!("{:?}", CaFile::read(&path).expect("a bundle"));
        assert!(shown.ends_with("certificates: 1 }"), "{shown}");
    }
}
