//! What the authority's certificates say, and what certificates of hosts say that it vouches for.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CidrSubnet, DistinguishedName, DnType, Error,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    NameConstraints, PublicKeyData, SanType, SigningKey, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;

use super::key::{Key, Public};

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

/// The authority's two certificates, and what they say.
///
/// Programs trust the root. Its key has signed the other one and is gone; the key that is kept is the signer's. Both say
/// the same of the hosts, but what a root says some libraries do not heed, Java's among them, while nobody overlooks what
/// is said by a certificate on the way.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) root: CertificateDer<'static>,
    pub(super) signer: CertificateDer<'static>,
    /// The root's, in the form of RFC 4514.
    pub(super) subject: String,
    pub(super) hosts: Vec<String>,
    pub(super) validity: Validity,
}

impl Chain {
    /// Makes both. Nobody needs the root's key afterwards.
    pub(super) fn make(
        root: &Key,
        signer: &Key,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Self, Error> {
        Self::signed_by(root, &root.public(), signer, hosts, validity)
    }

    fn signed_by(
        signs: &Key,
        root: &Public,
        signer: &Key,
        hosts: &[String],
        validity: Validity,
    ) -> Result<Self, Error> {
        let name = root_name(root);
        let of_root = authority(&name, hosts, validity, 1)?;
        let id = of_root.key_identifier(root);
        let issuer = issuer(&name, KeyIdMethod::PreSpecified(id), signs);
        let mut of_signer = authority(&signer_name(signer), hosts, validity, 0)?;
        of_signer.use_authority_key_identifier_extension = true;
        Ok(Self {
            root: of_root.signed_by(root, &issuer)?.der().clone(),
            signer: of_signer.signed_by(signer, &issuer)?.der().clone(),
            subject: format!("CN={name}"),
            hosts: hosts.to_vec(),
            validity,
        })
    }

    /// Reads those that were made for this key; `None` for all others, also those of another version of this program that
    /// made them otherwise.
    pub(super) fn read(
        root: CertificateDer<'static>,
        signer: CertificateDer<'static>,
        key: &Key,
    ) -> Option<Self> {
        let content = parse(&root)?;
        let begin = content.tbs_certificate().validity().not_before;
        let validity = Validity::of_authority(begin.to_system_time())?;
        let hosts = permitted(&content)?;
        let public = content.tbs_certificate().subject_public_key_info();
        let public = Public::from_bytes(public.subject_public_key.as_bytes()?);
        // All but the signatures is what it would be if it were made now.
        let again = Self::signed_by(key, &public, key, &hosts, validity).ok()?;
        let is_whole = is_same_signed_by(&root, &again.root, &public)?
            && is_same_signed_by(&signer, &again.signer, &public)?;
        is_whole.then_some(Self {
            root,
            signer,
            ..again
        })
    }
}

/// Whether a certificate says what another does, and this key has signed it.
fn is_same_signed_by(der: &[u8], again: &[u8], key: &Public) -> Option<bool> {
    let (content, again) = (parse(der)?, parse(again)?);
    let message = content.tbs_certificate().to_der().ok()?;
    let is_same = again.tbs_certificate().to_der().ok()? == message
        && content.signature_algorithm() == content.tbs_certificate().signature();
    Some(is_same && key.has_signed(&message, content.signature().as_bytes()?))
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
fn root_name(key: &Public) -> String {
    format!("lucid-proxy on this machine {}", key.id())
}

fn signer_name(key: &Key) -> String {
    format!("lucid-proxy signer {}", key.public().id())
}

/// What both of the authority's certificates say; below it there may be so many more.
fn authority(
    name: &str,
    hosts: &[String],
    validity: Validity,
    below: u8,
) -> Result<CertificateParams, Error> {
    let mut params = params(name, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
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

/// Who signs with a key, under this name.
fn issuer<S: SigningKey>(name: &str, id: KeyIdMethod, key: S) -> Issuer<'static, S> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.key_identifier_method = id;
    Issuer::new(params, key)
}

/// Vouches for hosts: the key that is kept, and the certificate that goes with what it signs.
#[derive(Debug)]
pub(super) struct Signer {
    issuer: Issuer<'static, Key>,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) validity: Validity,
}

impl Signer {
    pub(super) fn new(key: Key, chain: &Chain) -> Self {
        Self {
            issuer: issuer(&signer_name(&key), KeyIdMethod::Sha256, key),
            certificate: chain.signer.clone(),
            validity: chain.validity,
        }
    }
}

/// Vouches for a host.
pub(super) fn certify(
    signer: &Signer,
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
    params.signed_by(public_key, &signer.issuer)
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
