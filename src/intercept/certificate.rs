//! What the authority's certificate says, and what certificates of hosts say that it vouches for.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType, Error,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyUsagePurpose, NameConstraints,
    PublicKeyData, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;

use super::key::Key;

/// Certificates begin so long before they are made: not all clocks are right.
pub(super) const BEFORE: Duration = Duration::from_secs(60 * 60);
/// How long the authority's certificate is good for.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How long a host's certificate is good for. It lives in memory alone, and programs that ask for more are rare.
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The longest common name (RFC 5280 appendix A.1).
const LONGEST_COMMON_NAME: usize = 64;

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub begin: SystemTime,
    /// The last one.
    pub end: SystemTime,
}

impl Validity {
    fn of_authority(begin: SystemTime) -> Option<Self> {
        let end = begin.checked_add(BEFORE)?.checked_add(YEAR)?;
        Some(Self { begin, end })
    }

    /// Of a certificate that is made now: in whole seconds, as certificates tell time.
    pub(super) fn from_now(now: SystemTime) -> Option<Self> {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let begin = since.checked_sub(BEFORE)?.as_secs();
        Self::of_authority(SystemTime::UNIX_EPOCH + Duration::from_secs(begin))
    }

    /// Of a host's certificate that is made now, within that of the authority.
    pub(super) fn of_leaf(self, now: SystemTime) -> Option<Self> {
        let begin = now.checked_sub(BEFORE)?.max(self.begin);
        let end = now.checked_add(WEEK)?.min(self.end);
        (begin <= now && now < end).then_some(Self { begin, end })
    }
}

/// The authority's certificate, and what it says.
#[derive(Clone, Debug)]
pub(super) struct Root {
    pub(super) der: CertificateDer<'static>,
    /// In the form of RFC 4514.
    pub(super) subject: String,
    pub(super) hosts: Vec<String>,
    pub(super) validity: Validity,
}

impl Root {
    /// Makes one for a key, signed by itself.
    pub(super) fn make(key: &Key, hosts: &[String], validity: Validity) -> Result<Self, Error> {
        let der = root_params(key, hosts, validity)?
            .self_signed(key)?
            .der()
            .clone();
        Ok(Self {
            subject: format!("CN={}", common_name(key)),
            der,
            hosts: hosts.to_vec(),
            validity,
        })
    }

    /// Reads one that was made for this key; `None` for every other certificate, also one of another version of this
    /// program that made them otherwise.
    pub(super) fn read(der: CertificateDer<'static>, key: &Key) -> Option<Self> {
        let content = parse(&der)?;
        let begin = content.tbs_certificate().validity().not_before;
        let validity = Validity::of_authority(begin.to_system_time())?;
        let hosts = permitted(&content)?;
        let again = Self::make(key, &hosts, validity).ok()?;
        let signed =
            |certificate: &CertificateInner<Raw>| certificate.tbs_certificate().to_der().ok();
        let message = signed(&content)?;
        let is_same = signed(&parse(&again.der)?)? == message
            && content.signature_algorithm() == content.tbs_certificate().signature();
        let is_signed = key.has_signed(&message, content.signature().as_bytes()?);
        (is_same && is_signed).then_some(Self { der, ..again })
    }
}

fn parse(der: &[u8]) -> Option<CertificateInner<Raw>> {
    CertificateInner::<Raw>::from_der(der).ok()
}

/// The names that a certificate permits.
fn permitted(certificate: &CertificateInner<Raw>) -> Option<Vec<String>> {
    use x509_cert::ext::pkix::NameConstraints;

    let constraints = certificate
        .tbs_certificate()
        .get_extension::<NameConstraints>();
    let (_, constraints) = constraints.ok().flatten()?;
    let permitted = constraints.permitted_subtrees?.into_iter();
    permitted
        .map(|subtree| match subtree.base {
            GeneralName::DnsName(name) => Some(name.to_string()),
            _ => None,
        })
        .collect()
}

/// Another for every key: where several are trusted, no library takes one for another.
fn common_name(key: &Key) -> String {
    format!("lucid-proxy on this machine {}", key.id())
}

fn root_params(
    key: &Key,
    hosts: &[String],
    validity: Validity,
) -> Result<CertificateParams, Error> {
    let mut params = params(&common_name(key), validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // Names of hosts are all that constraints of names constrain. Without this, a stolen key could sign programs and mail.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: hosts.iter().cloned().map(GeneralSubtree::DnsName).collect(),
        excluded_subtrees: vec![
            GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
            GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
        ],
    });
    Ok(params)
}

/// Who vouches for hosts with this key.
pub(super) fn issuer(key: Key) -> Issuer<'static, Key> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&common_name(&key));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Issuer::new(params, key)
}

/// Vouches for a host.
pub(super) fn certify(
    issuer: &Issuer<'static, Key>,
    host: &str,
    public_key: &impl PublicKeyData,
    validity: Validity,
) -> Result<Certificate, Error> {
    let name = Some(host).filter(|host| host.len() <= LONGEST_COMMON_NAME);
    let mut params = params(name.unwrap_or("lucid-proxy"), validity)?;
    params.subject_alt_names = vec![SanType::DnsName(host.try_into()?)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    params.signed_by(public_key, issuer)
}

fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, Error> {
    let epoch = date_time_ymd(1970, 1, 1);
    // What it says is in years of four digits (RFC 5280 section 4.1.2.5), and so is what can be added.
    let time = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        epoch.checked_add(Duration::from_secs(since.as_secs()).try_into().ok()?)
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.not_before = time(validity.begin).ok_or(Error::Time)?;
    params.not_after = time(validity.end).ok_or(Error::Time)?;
    Ok(params)
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
