//! One program with its clients, started again whenever it died.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::super::endpoint::TokenEndpoint;
use super::super::refresher::Refresher;
use super::super::store::Store;
use super::super::traffic::Lane;
use super::super::{Bearer, Grant};
use super::disk::{STORE, SimulatedDisk};
use super::judge;
use super::network::SimulatedNetwork;
use super::world::{Inner, Life, SimulatedClock, World};
use crate::config::{Client, Config, Credential, Need};
use crate::secret::{ExposeSecret, Secret};

/// How long a request waits for a token.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all processes of a scenario have in common.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) credential: Credential,
    /// How many clients each process has, and the longest time between two requests of one.
    pub(super) clients: u32,
    pub(super) pause: Duration,
}

impl Plan {
    pub(super) fn credential(margin: Duration, idle: Duration) -> Credential {
        let nothing = std::collections::BTreeMap::new();
        let config = Config::parse("", None, &nothing, Need::Store);
        Credential {
            store: STORE.into(),
            refresh_margin: margin,
            rotate_idle_after: idle,
            scopes: vec!["offline_access".to_owned()],
            ..config.expect("the defaults").credential
        }
    }
}

/// The token endpoint as the process of this life asks it.
pub(super) fn endpoint(world: &World, life: Life) -> TokenEndpoint {
    let client = Client {
        id: "cid".to_owned(),
        secret: Secret::from("sec"),
    };
    let network = SimulatedNetwork {
        world: world.clone(),
        life,
    };
    let url = Uri::from_static("https://lucid.test/oauth2/token");
    TokenEndpoint::new(&url, client, Arc::new(network))
}

/// The store as the process of this life has it.
pub(super) fn store(world: &World, life: Life, watched: bool) -> Store {
    let disk = SimulatedDisk {
        world: world.clone(),
        life,
        watched,
    };
    Store::on(Arc::new(disk), STORE.into())
}

/// Keeps one program running: it dies by chance, or is asked to end by `stop`, and is started again after a while.
pub(super) async fn keep_running(world: World, plan: Plan, calm: CancellationToken) {
    loop {
        live(&world, &plan).await;
        let down = {
            let mut inner = world.lock();
            let longest = if calm.is_cancelled() { 1_000 } else { 40_000 };
            Duration::from_millis(inner.rng.u64(1..longest))
        };
        sleep(down).await;
    }
}

/// One life.
async fn live(world: &World, plan: &Plan) {
    let (life, killed) = world.born();
    let watched = world.lock().rng.u8(0..10) > 0;
    let opened = Refresher::assemble(
        &plan.credential,
        store(world, life, watched),
        endpoint(world, life),
        PATIENCE,
        Arc::new(SimulatedClock(world.clone())),
    );
    let Ok((grant, refresher)) = opened else {
        // Nothing may keep it from starting but its death or a disk that cannot be read.
        let mut inner = world.lock();
        if inner.is_alive(life) {
            if inner.faults.disk_error == 0.0 {
                inner.violate(format!("process {life} cannot start"));
            }
            inner.end(life);
        }
        return;
    };
    world.lock().fate(life).grant = Some(grant.clone());
    let stop = CancellationToken::new();
    let running = spawn_local(refresher.run(stop.clone(), Duration::from_secs(5)));
    let mut tasks = Tasks(vec![running.abort_handle()]);
    for _ in 0..plan.clients {
        let client = client(world.clone(), life, grant.clone(), plan.pause);
        tasks.0.push(spawn_local(client).abort_handle());
    }
    tasks
        .0
        .push(spawn_local(judge::watch(world.clone(), life, grant.clone())).abort_handle());
    let orderly = {
        let mut inner = world.lock();
        Duration::from_secs(inner.rng.u64(60..20_000))
    };
    tokio::select! {
        biased;
        () = killed.notified() => {}
        () = end_in_order(world, life, orderly) => {
            stop.cancel();
            let _ = running.await;
            let mut inner = world.lock();
            inner.note(format!("process {life} has ended in order"));
            if inner.fate(life).posting.is_some() {
                inner.violate(format!("T4: process {life} ends in the middle of a rotation"));
            }
            inner.end(life);
        }
    }
}

/// The moment in which the process is told to end: any, or while a refresh token is on its way (T4).
async fn end_in_order(world: &World, life: Life, after: Duration) {
    sleep(after).await;
    let picky = world.lock().rng.bool();
    let is_posting = || world.lock().fate(life).posting.is_some();
    for _ in 0..1_000 {
        if !picky || is_posting() {
            return;
        }
        sleep(Duration::from_millis(300)).await;
    }
}

/// Ended with the process.
struct Tasks(Vec<AbortHandle>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// A client that sends requests through the process, one after the other.
async fn client(world: World, life: Life, grant: Grant, longest: Duration) {
    let lane = Rc::new(grant.lane());
    loop {
        let pause = {
            let mut inner = world.lock();
            longest.mul_f64(inner.rng.f64())
        };
        sleep(pause).await;
        request(&world, life, &grant, &lane).await;
    }
}

/// The request path's part in the life of a grant: a bearer, a 401, one replay.
async fn request(world: &World, life: Life, grant: &Grant, lane: &Lane) {
    let Ok(bearer) = grant.bearer().await else {
        return;
    };
    let on_its_way = lane.enter();
    world.lock().tally.requests += 1;
    if upstream(world, life, &bearer).await {
        return;
    }
    let counted = |bearer: &Bearer| bearer.generation.expect("a login counts its pairs");
    let newer = grant.reject(counted(&bearer)).await;
    if let Ok(newer) = newer {
        let accepted = upstream(world, life, &newer).await;
        world.lock().tally.replays += 1;
        grant.replayed(counted(&newer), accepted);
    }
    drop(on_its_way);
}

/// Whether upstream takes the token.
async fn upstream(world: &World, life: Life, bearer: &Bearer) -> bool {
    let there = {
        let mut inner = world.lock();
        judge::check_bearer(&mut inner, life, bearer);
        delay(&mut inner)
    };
    sleep(there).await;
    let (accepted, back) = {
        let mut inner = world.lock();
        let now = inner.truth();
        let token = bearer.token();
        let accepted = inner.lucid.accepts(token.expose_secret(), now) && !inner.faults.incurable;
        (accepted, delay(&mut inner))
    };
    sleep(back).await;
    accepted
}

fn delay(inner: &mut Inner) -> Duration {
    Duration::from_millis(inner.rng.u64(1..300))
}
