//! What unmodified programs need that have `https://api.lucid.co` written into them: a certificate authority of our own,
//! made and kept on this machine, and what makes programs trust it.
//!
//! Nothing here is ever put into the system's trust store. The authority can vouch for nothing but web servers of the
//! hosts that are intercepted, which its own certificates say (RFC 5280 section 4.2.1.10), so that even its stolen key is
//! of no use for any other host.
//!
//! For the programs: [`environment`] has the variables that lead one here, with what is left of its list of exceptions
//! ([`no_proxy`]); [`program_files`] what those variables name, [`run_directory`] where a run keeps that; [`own_user`] tells
//! whether it is a program of this user that connects.

pub mod address;
pub mod authority;
mod certificate;
pub mod connect;
pub mod environment;
mod files;
mod key;
mod leaf;
pub mod no_proxy;
pub mod own_user;
mod pem;
mod pkcs12;
pub mod program_files;
pub mod run_directory;
pub mod trust;

pub use authority::{Authority, AuthorityError};
pub use leaf::LeafError;
