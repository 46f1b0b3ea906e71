//! nginx, set up as its documentation advises for kept connections on both sides.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use super::process::Process;
use super::{Installed, Kind, Peer, free_address};
use crate::case::{Head, authorization};

pub(super) fn start(upstream: SocketAddr, directory: &Path) -> anyhow::Result<Option<Peer>> {
    let Some(installed) = Installed::find("nginx") else {
        return Ok(None);
    };
    let address = free_address()?;
    let config = directory.join("nginx.conf");
    fs::write(&config, nginx_conf(address, upstream))?;
    let mut command = Command::new(&installed.path);
    // -e: without it the log file of the installation is opened before the configuration is read.
    command
        .args(["-e", "stderr", "-p"])
        .arg(directory)
        .arg("-c")
        .arg(&config);
    let mut process = Process::start(&mut command, directory)?;
    process.accepts(address).context("nginx")?;
    Ok(Some(Peer {
        kind: Kind::Nginx,
        version: installed.version,
        address,
        head: Head::ForProxy(address),
        process,
    }))
}

/// One process that serves: without a master, whose memory and time would have to be counted too. Paths are relative to
/// the prefix, which `-p` gives. No connection is closed for its age or its number of requests.
fn nginx_conf(address: SocketAddr, upstream: SocketAddr) -> String {
    let authorization = authorization();
    format!(
        r#"daemon off;
master_process off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{
    worker_connections 1024;
}}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 1000000000;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream api {{
        server {upstream};
        keepalive 128;
        keepalive_timeout 75s;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} backlog=1024;
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host "{upstream}";
            proxy_set_header Authorization "{authorization}";
        }}
        location /files/ {{
            client_max_body_size 0;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host "{upstream}";
            proxy_set_header Authorization "{authorization}";
        }}
    }}
}}
"#
    )
}
