//! The authority's private key: ECDSA on P-256, which every TLS library verifies.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair,
    UnparsedPublicKey,
};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};

/// A private key, whose memory is wiped when it is dropped: it lives in the library that signs, and nowhere else.
pub(super) struct Key(EcdsaKeyPair);

impl Key {
    /// A new one.
    pub(super) fn generate() -> Result<Self, Unspecified> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Self)
    }

    /// The one that was written down (RFC 5958).
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, KeyRejected> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der).map(Self)
    }

    /// As it is written down; wiped when dropped.
    pub(super) fn to_pkcs8(&self) -> Result<Document, Unspecified> {
        self.0.to_pkcs8v1()
    }

    /// The half of it that everybody may know.
    pub(super) fn public(&self) -> Public {
        Public(self.der_bytes().to_vec())
    }
}

/// The public half of a key of this kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Public(Vec<u8>);

impl Public {
    /// The one that stands in a certificate. Whether it is one shows when it is used.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// What tells one key from another, for people.
    pub(super) fn id(&self) -> String {
        let digest = digest(&SHA256, &self.0);
        let begin = digest.as_ref().iter().take(4);
        begin.map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the private half has signed `message`.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.0);
        public.verify(message, signature).is_ok()
    }
}

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.0.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| rcgen::Error::RemoteKeyError)?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
    }
}
