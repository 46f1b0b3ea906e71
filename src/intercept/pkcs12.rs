//! A trust store for Java: PKCS#12 (RFC 7292) with certificates alone, neither encrypted nor sealed.
//!
//! Java takes a certificate without a private key for a trusted one only where an attribute of Oracle's says so, and
//! asks for a seal only where there is one.

use rustls::pki_types::CertificateDer;

/// Tags of ASN.1 (X.690 section 8).
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BMP_STRING: u8 = 0x1e;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`
const EXPLICIT_0: u8 = 0xa0;

/// Identifiers, as they are encoded: 1.2.840.113549.1.7.1 (`id-data`, RFC 2315 section 14),
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.12.10.1.3 (`certBag`, RFC 7292 appendix D),
const CERT_BAG: &[u8] = &[
    0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 0x03,
];
/// 1.2.840.113549.1.9.22.1 (`x509Certificate`, RFC 7292 section 4.2.3),
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
/// 1.2.840.113549.1.9.20 (`friendlyName`, RFC 2985 section 5.5.1),
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
/// 2.16.840.1.113894.746875.1.1 (`trustedKeyUsage` of Oracle's),
const TRUSTED_KEY_USAGE: &[u8] = &[
    0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01,
];
/// 2.5.29.37.0 (`anyExtendedKeyUsage`, RFC 5280 section 4.2.1.12).
const ANY_EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0x00];

/// The version of RFC 7292.
const VERSION: &[u8] = &[3];

/// A store of these certificates, the first of which is ours.
pub(super) fn trust_store(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    // Entries are told apart by their names.
    let bags = certificates
        .iter()
        .enumerate()
        .map(|(number, certificate)| {
            let name = match number {
                0 => "lucid-proxy".to_owned(),
                _ => format!("trusted-{number}"),
            };
            bag(certificate, &name)
        });
    let bags = value(SEQUENCE, &bags.collect::<Vec<_>>().concat());
    let safe = value(SEQUENCE, &data(&bags));
    let version = value(INTEGER, VERSION);
    value(SEQUENCE, &[version, data(&safe)].concat())
}

/// `SafeBag` (RFC 7292 section 4.2) with a certificate that is trusted for everything.
fn bag(certificate: &[u8], name: &str) -> Vec<u8> {
    let certificate = explicit(&value(OCTET_STRING, certificate));
    let certificate = value(
        SEQUENCE,
        &[identifier(X509_CERTIFICATE), certificate].concat(),
    );
    let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let attributes = [
        attribute(FRIENDLY_NAME, &value(BMP_STRING, &name)),
        attribute(TRUSTED_KEY_USAGE, &identifier(ANY_EXTENDED_KEY_USAGE)),
    ];
    let parts = [
        identifier(CERT_BAG),
        explicit(&certificate),
        value(SET, &attributes.concat()),
    ];
    value(SEQUENCE, &parts.concat())
}

fn attribute(name: &[u8], content: &[u8]) -> Vec<u8> {
    value(SEQUENCE, &[identifier(name), value(SET, content)].concat())
}

/// `ContentInfo` (RFC 2315 section 7) with bytes as they are.
fn data(content: &[u8]) -> Vec<u8> {
    let content = explicit(&value(OCTET_STRING, content));
    value(SEQUENCE, &[identifier(DATA), content].concat())
}

fn identifier(encoded: &[u8]) -> Vec<u8> {
    value(OBJECT_IDENTIFIER, encoded)
}

fn explicit(content: &[u8]) -> Vec<u8> {
    value(EXPLICIT_0, content)
}

/// A value with its tag and length in DER (X.690 sections 8.1 and 10.1).
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut encoded = vec![tag];
    match length.as_slice() {
        [] => encoded.push(0),
        [short @ ..0x80] => encoded.push(*short),
        // There are eight at the most.
        long => {
            encoded.push(0x80 | long.len() as u8);
            encoded.extend_from_slice(long);
        }
    }
    encoded.extend_from_slice(content);
    encoded
}
