//! What unmodified programs need that have `https://api.lucid.co` written into them: a certificate authority of our own,
//! made and kept on this machine, and what makes programs trust it.
//!
//! Nothing here is ever put into the system's trust store. The authority can vouch for nothing but web servers of the
//! hosts that are intercepted, which its own certificates say (RFC 5280 section 4.2.1.10), so that even its stolen key is
//! of no use for any other host.

pub mod address;
pub mod authority;
mod certificate;
pub mod connect;
mod files;
mod key;
mod leaf;
mod pem;
mod pkcs12;
pub mod trust;

pub use authority::{Authority, AuthorityError};
pub use leaf::LeafError;
