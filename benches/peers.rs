//! Compares the proxy with other proxies.

fn main() {}
