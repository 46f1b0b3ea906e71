//! HTTP/2 towards clients (RFC 9113): a task for each stream, and the bounds of a connection.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::task::TaskTracker;

use super::connection::{Entrance, Watch};
use super::patience::Patience;
use super::stream::Stream;
use crate::config::HeadLimits;
use crate::proxy::ambiguity::Unservable;
use crate::proxy::body::{Activity, Pace, ResponseBody};

/// Requests that a client may have under way on one connection; more wait at the client.
const MOST_STREAMS: u32 = 128;
/// Bytes of one stream that may be in memory here, in each direction.
const STREAM_WINDOW: u32 = 256 << 10;
/// Bytes of all uploads of one connection that may be in memory here: sixteen that nobody takes do not stop the others.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Bytes of a head beyond what is allowed that come to whoever refuses it, and says why. The library answers a larger one by
/// itself, with a bare 431, and keeps nothing of it.
const TOLD_WHY: usize = 64 << 10;
/// How long a client of HTTP/2 with nothing under way may take to hear that the connection ends. Some do not read while
/// they do not ask, and would be waited for in vain.
const FAREWELL: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// Of the response on the stream whose task this is.
    static PACE: Rc<Pace>;
}

/// Serves a connection until either side ends it. That many streams are reset as soon as they are opened ends it too:
/// that bound is the library's own.
pub(super) async fn serve(stream: Stream, entrance: &Rc<Entrance>, activity: Rc<Activity>) {
    let wire = stream.wire();
    let service = service_fn(|request| answer(entrance.clone(), activity.clone(), request));
    let body = entrance.bounds.body;
    let tasks = Tasks {
        tracker: entrance.tasks.clone(),
        bound: body,
    };
    let largest_head = entrance.limits.head.bytes.saturating_add(TOLD_WHY);
    let largest_head = u32::try_from(largest_head).unwrap_or(u32::MAX);
    let connection = http2::Builder::new(tasks)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(largest_head)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(body)
        .keep_alive_timeout(body)
        .serve_connection(TokioIo::new(stream), service);
    Watch::new(entrance, &activity, &wire)
        .farewell(FAREWELL)
        // It is kept until a window opens, where nobody sees it.
        .rest(entrance.bounds.idle)
        .over(pin!(connection), http2::Connection::graceful_shutdown)
        .await;
}

async fn answer(
    entrance: Rc<Entrance>,
    activity: Rc<Activity>,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let (busy, fits) = activity.begin();
    let why = excess(&request, entrance.limits.head);
    if let Some(why) = why.or_else(|| entrance.overloaded(fits)) {
        entrance.limits.say_unservable(why);
        request.extensions_mut().insert(why);
    }
    let mut response = entrance.proxy.handle(request, &entrance.guard, busy).await;
    // What answers is polled by the task of its stream.
    response.body_mut().keep_pace(PACE.with(Rc::clone));
    Ok(response)
}

/// What is too much of a head.
fn excess<B>(request: &Request<B>, limits: HeadLimits) -> Option<Unservable> {
    let target = request.uri().path_and_query();
    if target.is_some_and(|target| target.as_str().len() > limits.target) {
        return Some(Unservable::TargetTooLong(limits.target));
    }
    if request.headers().len() > limits.fields {
        return Some(Unservable::TooManyFields(limits.fields));
    }
    (size(request) > limits.bytes).then_some(Unservable::HeadTooLarge(limits.bytes))
}

/// Bytes of the names and values of all fields, with 32 for each, those of the method and the target too (RFC 9113
/// sections 8.3.1 and 10.5.1).
fn size<B>(request: &Request<B>) -> usize {
    let uri = request.uri();
    let of_request = [
        (":method", Some(request.method().as_str())),
        (":scheme", uri.scheme_str()),
        (":authority", uri.authority().map(Authority::as_str)),
        (":path", uri.path_and_query().map(PathAndQuery::as_str)),
    ];
    let of_request = of_request
        .iter()
        .filter_map(|(name, value)| Some(of_field(name, value.as_ref()?.len())));
    let fields = request.headers().iter();
    let fields = fields.map(|(name, value)| of_field(name.as_str(), value.len()));
    of_request.sum::<usize>() + fields.sum::<usize>()
}

fn of_field(name: &str, value: usize) -> usize {
    name.len() + value + 32
}

/// Gives each stream a task on this thread, which ends when the client does not take its content for too long.
#[derive(Clone, Debug)]
struct Tasks {
    tracker: TaskTracker,
    bound: Duration,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, stream: F) {
        let pace = Rc::<Pace>::default();
        let stream = PACE.scope(pace.clone(), stream);
        self.tracker
            .spawn_local(while_it_moves(stream, pace, self.bound));
    }
}

/// Runs a stream to its end, or until the client has taken nothing of it for so long; dropped, the stream is reset.
async fn while_it_moves(stream: impl Future<Output = ()>, pace: Rc<Pace>, bound: Duration) {
    let mut stream = pin!(stream);
    let mut patience = Patience::new(bound);
    let mut last = None;
    poll_fn(|cx| {
        if stream.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let piece = pace.waits_for();
        if piece != last {
            patience.renew();
            last = piece;
        }
        if piece.is_none() {
            return Poll::Pending;
        }
        ready!(patience.poll_end(cx));
        pace.give_up();
        tracing::debug!("a client took nothing of a stream for {bound:?} (timeouts.body)");
        Poll::Ready(())
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s07_a_head_of_http_2_may_be_as_large_as_its_limits_and_no_larger() {
        let request = Request::get("https://a/12345")
            .header("x", "y")
            .header("x", "yz")
            .body(())
            .expect("a request");
        let of_request = (7 + 3 + 32) + (7 + 5 + 32) + (10 + 1 + 32) + (5 + 6 + 32);
        let bytes = of_request + (1 + 1 + 32) + (1 + 2 + 32);
        let exact = HeadLimits {
            bytes,
            fields: 2,
            target: 6,
        };
        assert_eq!(excess(&request, exact), None);
        for (limits, why) in [
            (
                HeadLimits {
                    bytes: bytes - 1,
                    ..exact
                },
                Unservable::HeadTooLarge(bytes - 1),
            ),
            (
                HeadLimits { fields: 1, ..exact },
                Unservable::TooManyFields(1),
            ),
            (
                HeadLimits { target: 5, ..exact },
                Unservable::TargetTooLong(5),
            ),
        ] {
            assert_eq!(excess(&request, limits), Some(why));
        }
    }

    #[test]
    fn s07_the_method_and_the_authority_of_http_2_count_as_the_head_does() {
        let limits = HeadLimits {
            bytes: 1024,
            fields: 10,
            target: 100,
        };
        let long = "X".repeat(900);
        for (length, why) in [
            (800, None),
            (900, Some(Unservable::HeadTooLarge(limits.bytes))),
        ] {
            let by_method = Request::builder().method(&long[..length]);
            let by_method = by_method.uri("https://a/").body(());
            let by_authority = Request::get(format!("https://{}/", &long[..length])).body(());
            for request in [by_method, by_authority] {
                let request = request.expect("a request");
                assert_eq!(excess(&request, limits), why, "{length}");
            }
        }
    }
}
