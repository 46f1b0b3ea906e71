//! One client's connection: HTTP/1.1, its idle bounds, and its end.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Response, Version};
use http_body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stream::Stream;
use crate::proxy::Proxy;
use crate::proxy::body::{Activity, ResponseBody};
use crate::proxy::guard::Guard;

/// How long a client may do nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) first_request: Duration,
    pub(super) idle: Duration,
}

/// How long a first request may still arrive on a connection that is to end.
const FIRST_REQUEST_UNDER_WAY: Duration = Duration::from_secs(1);

/// Serves a connection until either side ends it.
pub(super) async fn serve(
    tcp: TcpStream,
    proxy: Rc<Proxy>,
    guard: Rc<Guard>,
    bounds: Bounds,
    stop: CancellationToken,
) {
    // A socket that refuses the option is about to fail anyway.
    let _ = tcp.set_nodelay(true);
    let stream = Stream::new(tcp);
    let wire = stream.wire();
    let activity = Activity::new();
    let service = service_fn(|request| {
        let busy = activity.begin();
        let version = request.version();
        let (proxy, guard, wire) = (&proxy, &guard, &wire);
        async move {
            let mut response = proxy.handle(request, guard).await;
            wire.ends_by_close(version == Version::HTTP_10 && !has_length(&response));
            response.body_mut().keep_busy(busy);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            // A client that has sent all it has to say may say so and still wants its answer. One that has left looks
            // the same: its request goes on until the answer has nowhere to go.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service)
    );
    let idle = tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = idle(&activity, bounds) => true,
        () = stop.cancelled() => false,
    };
    connection.as_mut().graceful_shutdown();
    let used = activity.idle_since().is_none_or(|(_, used)| used);
    // hyper has taken the whole of a response before the client has, and a client that has sent half a head would be
    // waited for without a bound.
    let bound = match (idle, used) {
        (_, false) => FIRST_REQUEST_UNDER_WAY,
        (true, true) => bounds.idle,
        // What is under way may end; how long it may take is the worker's to say.
        (false, true) => Duration::MAX,
    };
    let _ = tokio::time::timeout(bound, connection).await;
}

/// Whether the client is told how long the content is. Otherwise it ends, for a client of HTTP/1.0, with the connection.
fn has_length(response: &Response<ResponseBody>) -> bool {
    response.headers().contains_key(CONTENT_LENGTH) || response.body().size_hint().exact().is_some()
}

/// Completes when the client has done nothing for too long.
async fn idle(activity: &Activity, bounds: Bounds) {
    loop {
        let deadline = match activity.idle_since() {
            Some((since, true)) => since + bounds.idle,
            Some((since, false)) => since + bounds.first_request,
            // Looked at again when it could be idle for that long at the earliest: one timer for many requests.
            None => Instant::now() + bounds.idle,
        };
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
}
