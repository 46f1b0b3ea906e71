//! The least that a proxy can do: it copies bytes, and understands none of them.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Relays on one thread, each client over a connection of its own, until the process is ended.
pub(crate) fn run(upstream: SocketAddr) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let mut out = std::io::stdout();
        writeln!(out, "relay http://{}", listener.local_addr()?)?;
        out.flush()?;
        loop {
            let (client, _) = listener.accept().await?;
            tokio::spawn(async move {
                // A client that misses an answer says so; the relay has nobody to tell.
                let _ = relay(client, upstream).await;
            });
        }
    })
}

async fn relay(mut client: TcpStream, upstream: SocketAddr) -> std::io::Result<()> {
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
