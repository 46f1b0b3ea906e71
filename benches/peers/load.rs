//! The load: kept connections, each sending its next request when the last one is answered.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::JoinSet;

use crate::case::Load;
use crate::content::Content;
use crate::wire::Reader;

/// What is not measured at the beginning: connections are opened, here and towards upstream.
const LEAD_IN: Duration = Duration::from_millis(250);

/// Whom to ask, for what, and what the answer must be.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) request_head: Vec<u8>,
    pub(crate) content: Content,
    pub(crate) answer: Content,
    pub(crate) load: Load,
}

/// What happened while it was measured, with what `sample` said before and after.
#[derive(Debug)]
pub(crate) struct Measured<S> {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) before: S,
    pub(crate) after: S,
    /// How long each answer took, in nanoseconds, sorted.
    pub(crate) latencies: Vec<u32>,
}

/// What the connections of one load share; all of them are on one thread.
#[derive(Debug, Default)]
struct Traffic {
    answered: Cell<u64>,
    measured: Cell<bool>,
    ended: Cell<bool>,
    latencies: RefCell<Vec<u32>>,
}

/// Loads a proxy for `period`, or once.
///
/// # Errors
///
/// At the first answer that is missing or wrong.
pub(crate) fn run<S>(
    target: Target,
    period: Duration,
    sample: impl Fn() -> anyhow::Result<S>,
) -> anyhow::Result<Measured<S>> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(measure(Rc::new(target), period, sample))
}

async fn measure<S>(
    target: Rc<Target>,
    period: Duration,
    sample: impl Fn() -> anyhow::Result<S>,
) -> anyhow::Result<Measured<S>> {
    let traffic = Rc::new(Traffic::default());
    let mut clients = JoinSet::new();
    let Load::Crowd(connections) = target.load else {
        traffic.measured.set(true);
        traffic.ended.set(true);
        let (begun, before) = (Instant::now(), sample()?);
        client(target, traffic.clone()).await?;
        return Ok(traffic.measured(begun, before, sample()?));
    };
    for _ in 0..connections {
        clients.spawn_local(client(target.clone(), traffic.clone()));
    }
    pass(LEAD_IN, &mut clients).await?;
    traffic.measured.set(true);
    traffic.answered.set(0);
    let (begun, before) = (Instant::now(), sample()?);
    pass(period, &mut clients).await?;
    let measured = traffic.measured(begun, before, sample()?);
    traffic.ended.set(true);
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(measured)
}

/// Lets time pass; a client that ends in it has failed.
async fn pass(time: Duration, clients: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        Some(ended) = clients.join_next() => ended?,
    }
}

async fn client(target: Rc<Target>, traffic: Rc<Traffic>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(target.address).await?;
    stream.set_nodelay(true)?;
    let mut reader = Reader::new();
    let mut sent = Instant::now();
    loop {
        let content = &target.content;
        content
            .write_behind(&target.request_head, &mut stream)
            .await?;
        let head = reader.head(&mut stream).await?;
        let head = head.context("the proxy closed the connection instead of answering")?;
        let start = String::from_utf8_lossy(head.start);
        ensure!(start.starts_with("HTTP/1.1 200 "), "the answer is {start}");
        ensure!(
            reader.content_is(&target.answer, &mut stream).await?,
            "the content of the answer is not upstream's"
        );
        // One clock for both: the next request leaves when this answer was read.
        let now = Instant::now();
        traffic.count(now - sent);
        sent = now;
        if traffic.ended.get() {
            return Ok(());
        }
    }
}

impl Traffic {
    fn measured<S>(&self, begun: Instant, before: S, after: S) -> Measured<S> {
        let mut latencies = self.latencies.take();
        latencies.sort_unstable();
        Measured {
            requests: self.answered.get(),
            elapsed: begun.elapsed(),
            before,
            after,
            latencies,
        }
    }

    fn count(&self, latency: Duration) {
        self.answered.set(self.answered.get() + 1);
        if self.measured.get() {
            let nanoseconds = u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX);
            self.latencies.borrow_mut().push(nanoseconds);
        }
    }
}
