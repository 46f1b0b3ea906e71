//! An authenticating reverse proxy for Lucid's REST API.

pub mod clock;
pub mod config;
pub mod proxy;
pub mod sandbox;
pub mod secret;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod token;
