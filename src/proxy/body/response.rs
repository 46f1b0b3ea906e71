//! A response body on its way to the client, counted while it passes.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::activity::Busy;
use super::pace::{PIECE, Pace};
use super::request::RequestBody;
use crate::proxy::echo::Watch;
use crate::proxy::exchange::Exchange;
use crate::proxy::tunnel::Beyond;
use crate::proxy::upstream_body::UpstreamBody;

/// What a client gets as the content of a response.
#[derive(Debug)]
pub struct ResponseBody {
    rest: Option<UpstreamBody>,
    /// How long upstream may be silent.
    bound: Duration,
    silence: Option<Pin<Box<Sleep>>>,
    /// Written down when this is dropped.
    exchange: Option<Box<Exchange>>,
    /// Tells the connection's idle timer when this is over.
    busy: Option<Busy>,
    /// Looks whether our token is in it.
    watch: Option<Box<Watch>>,
    /// Tells whether the client takes it, on a stream of HTTP/2.
    pace: Option<Rc<Pace>>,
    /// Boxed: an answer is moved many times on its way through hyper, and most have nothing of this.
    more: Option<Box<More>>,
}

/// What few answers have.
#[derive(Debug, Default)]
struct More {
    /// Read before; goes first.
    kept: Kept,
    /// To be told at the next poll.
    error: Option<BodyError>,
    /// The request, where it is not over yet.
    request: Option<RequestBody>,
    /// What the connection becomes behind this response.
    beyond: Option<Box<Beyond>>,
}

/// Frames that were read ahead of the client, with the error that ended them.
pub type Kept = VecDeque<Result<Frame<Bytes>, BodyError>>;

/// Why a response body ended early: its connection ends abruptly too, so that no cut file looks whole (F13).
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Upstream's connection broke.
    #[error("upstream broke off")]
    Cut(#[from] hyper::Error),
    /// Upstream reset the stream.
    #[error("upstream reset the stream")]
    Reset,
    /// Upstream fell silent.
    #[error("upstream sent nothing for {0:?} (timeouts.body)")]
    Silent(Duration),
}

impl ResponseBody {
    /// A body that is all there.
    pub fn local(content: Bytes) -> Self {
        let kept = VecDeque::from([Ok(Frame::data(content))]);
        Self::new(kept, None, Duration::ZERO)
    }

    /// No content, and then something else than HTTP.
    pub(in crate::proxy) fn switched(beyond: Beyond) -> Self {
        let mut body = Self::new(Kept::new(), None, Duration::ZERO);
        body.more().beyond = Some(Box::new(beyond));
        body
    }

    /// `kept`, then what is still to come from upstream, all of it under the eyes of `watch`.
    pub fn streamed(
        kept: Kept,
        rest: UpstreamBody,
        bound: Duration,
        watch: Option<Box<Watch>>,
    ) -> Self {
        let mut body = Self::new(kept, Some(rest), bound);
        body.watch = watch;
        body
    }

    fn new(kept: Kept, rest: Option<UpstreamBody>, bound: Duration) -> Self {
        let mut body = Self {
            rest,
            bound,
            silence: None,
            exchange: None,
            busy: None,
            watch: None,
            pace: None,
            more: None,
        };
        if !kept.is_empty() {
            body.more().kept = kept;
        }
        body
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Has `exchange` written down when this body has ended, however it ends, or the tunnel behind it.
    pub fn then_log(&mut self, exchange: Box<Exchange>) {
        match self
            .more
            .as_mut()
            .and_then(|more| more.beyond.as_deref_mut())
        {
            Some(Beyond::Tunnel(tunnel)) => tunnel.then_log(exchange),
            _ => self.exchange = Some(exchange),
        }
    }

    /// What the connection becomes when the response has been sent, if that is no longer HTTP.
    pub fn take_beyond(&mut self) -> Option<Box<Beyond>> {
        self.more.as_mut()?.beyond.take()
    }

    /// Counts the connection as busy until this body has ended.
    pub fn keep_busy(&mut self, busy: Busy) {
        self.busy = Some(busy);
    }

    /// Hands the content on in small pieces, and tells when.
    pub fn keep_pace(&mut self, pace: Rc<Pace>) {
        self.pace = Some(pace);
    }

    /// Leaves the rest of the request to whoever carries it on, when this body has come to its end.
    pub fn then_carry_on(&mut self, request: RequestBody) {
        self.more().request = Some(request);
    }

    /// Leaves the content out of an answer to a HEAD request, which says how long it would be all the same (RFC 9110
    /// section 9.3.2). hyper sees to that for HTTP/1 alone, and takes content that it does not ask for.
    pub fn withhold(response: &mut Response<Self>) {
        let body = response.body();
        let length = body.size_hint().exact().filter(|_| !body.is_end_stream());
        if let Some(length) = length {
            let headers = response.headers_mut();
            headers
                .entry(CONTENT_LENGTH)
                .or_insert_with(|| HeaderValue::from(length));
        }
        let body = response.body_mut();
        if let Some(more) = &mut body.more {
            more.kept.clear();
        }
        body.finish();
    }

    /// Nothing more is to come of this, as it should be.
    fn finish(&mut self) {
        let Some(rest) = self.rest.take() else {
            return;
        };
        let request = self.more.as_mut().and_then(|more| more.request.take());
        match (rest.finish(), request) {
            (Some(upload), Some(request)) => request.leave(upload),
            // The client's part is over.
            (Some(upload), None) => upload.finish(),
            (None, _) => {}
        }
    }

    /// Whether whoever sends this has all of it. In HTTP/1 hyper asks for nothing behind the announced length; in HTTP/2
    /// the end is told to the client too, and is to be had from upstream first.
    fn is_whole(&self) -> bool {
        let has_all = |rest: &UpstreamBody| match self.pace {
            None => rest.is_all_content(),
            Some(_) => rest.is_end_stream(),
        };
        let is_empty = |frame: &Result<Frame<Bytes>, BodyError>| {
            let data = frame.as_ref().ok().and_then(Frame::data_ref);
            data.is_some_and(Bytes::is_empty)
        };
        let is_over = |more: &More| more.error.is_none() && more.kept.iter().all(is_empty);
        self.more.as_deref().is_none_or(is_over) && self.rest.as_ref().is_none_or(has_all)
    }

    fn kept_length(&self) -> u64 {
        let kept = self.more.iter().flat_map(|more| &more.kept);
        let frames = kept.flatten().filter_map(Frame::data_ref);
        frames.map(|data| data.len() as u64).sum()
    }

    fn look_at(&mut self, frame: &Frame<Bytes>) {
        let Some(watch) = &mut self.watch else {
            return;
        };
        let Some(data) = frame.data_ref() else {
            if let Some(trailers) = frame.trailers_ref() {
                watch.look_at_trailers(trailers);
            }
            return;
        };
        let more =
            self.more.is_some() || self.rest.as_ref().is_some_and(|rest| !rest.is_end_stream());
        if !watch.look_at(data, more) {
            self.watch = None;
        }
    }

    /// The beginning of a frame, where it is to go in pieces.
    fn piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(pace) = &self.pace else {
            return frame;
        };
        pace.hand_on();
        match frame.into_data() {
            Ok(mut data) if data.len() > PIECE => {
                let rest = data.split_off(PIECE);
                self.more().kept.push_front(Ok(Frame::data(rest)));
                Frame::data(data)
            }
            Ok(data) => Frame::data(data),
            Err(frame) => frame,
        }
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(frame) = rest.poll_frame(cx) {
            self.silence = None;
            return Poll::Ready(frame);
        }
        let bound = self.bound;
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(bound)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Silent(bound))))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(pace) = &self.pace {
            pace.ask();
        }
        if let Some(error) = self.more.as_mut().and_then(|more| more.error.take()) {
            if let Some(exchange) = &mut self.exchange {
                exchange.cut(Some(error.to_string()));
            }
            return Poll::Ready(Some(Err(error)));
        }
        let kept = self.more.as_mut().and_then(|more| more.kept.pop_front());
        let frame = match kept {
            Some(frame) => Some(frame),
            None => ready!(self.poll_rest(cx)),
        };
        match frame {
            Some(Ok(frame)) => {
                let frame = self.piece(frame);
                if let Some(exchange) = &mut self.exchange {
                    exchange.count(&frame);
                }
                self.look_at(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // hyper gives a connection up at once when it is told. What came before is to reach the client first,
                // so hyper is left a moment to send it.
                self.more().error = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                self.finish();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_over = |more: &More| more.error.is_none() && more.kept.is_empty();
        self.more.as_deref().is_none_or(is_over)
            && self.rest.as_ref().is_none_or(UpstreamBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept_length();
        match self.rest.as_ref().map(|rest| rest.size_hint().exact()) {
            None => SizeHint::with_exact(kept),
            Some(Some(rest)) => SizeHint::with_exact(kept + rest),
            Some(None) => SizeHint::default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let is_left = self.pace.as_ref().is_some_and(|pace| pace.is_given_up());
        if self.is_whole() && !is_left {
            self.finish();
        } else if let Some(exchange) = &mut self.exchange {
            exchange.cut(None);
        }
    }
}
