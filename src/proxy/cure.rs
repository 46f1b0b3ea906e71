//! Step 7: a 401 that a newer token may cure (rules T1, F5, F6, F7).

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Frame;

use super::Proxy;
use super::body::{Kept, RequestBody, ResponseBody};
use super::echo::Watch;
use super::exchange::Exchange;
use super::head::{self, Names};
use super::reply::{self, PROXY_STATUS};
use super::send_error::SendError;
use super::upstream_body::UpstreamBody;
use crate::token::Bearer;

/// How much of a first answer is read while its replay is prepared, so that its connection is free for the replay.
/// Every known 401 is far smaller; the rest of a larger one stays where it is until the replay has an answer.
const KEPT: usize = 64 << 10;

/// What the client will get, and how it came about.
pub(super) struct Answer {
    pub(super) response: Response<Content>,
    /// Those of its head.
    pub(super) names: Names,
    /// The token that its request was sent with, if any.
    pub(super) bearer: Option<Arc<Bearer>>,
    note: Option<&'static str>,
    /// Why it was not sent again, where that could have helped.
    reason: Option<String>,
}

/// The content of an answer, of which some may have been read already.
pub(super) struct Content {
    kept: Kept,
    rest: UpstreamBody,
}

impl Answer {
    /// An answer that stands as it is.
    ///
    /// # Errors
    ///
    /// When it can be read in two ways.
    pub(super) fn plain(
        response: Response<UpstreamBody>,
        bearer: Option<Arc<Bearer>>,
    ) -> Result<Self, SendError> {
        let mut names = Names::of(response.headers());
        if !names.is_plainly_framed() {
            return Err(SendError::Framing);
        }
        if response.body().is_end_stream() {
            names = names.with(Names::EMPTY);
        }
        let response = response.map(|rest| Content {
            kept: Kept::new(),
            rest,
        });
        Ok(Self {
            response,
            names,
            bearer,
            note: None,
            reason: None,
        })
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    fn replayed(mut self) -> Self {
        self.tell("replayed with a new token");
        self.note = Some("replayed");
        self
    }

    fn not_replayed(mut self, reason: String) -> Self {
        self.tell(&format!("not replayed: {reason}"));
        self.note = Some("not replayed");
        self.reason = Some(reason);
        self
    }

    fn tell(&mut self, details: &str) {
        let headers = self.response.headers_mut();
        headers.append(PROXY_STATUS, reply::note(details));
    }

    /// Whether upstream changes to another protocol.
    pub(super) fn switches(&self) -> bool {
        self.status() == StatusCode::SWITCHING_PROTOCOLS
    }

    /// Writes down what happened.
    pub(super) fn note(&mut self, exchange: Option<&mut Exchange>) {
        if let Some(exchange) = exchange {
            exchange.generation = self.bearer.as_ref().and_then(|bearer| bearer.generation);
            exchange.note = self.note;
            exchange.reason = self.reason.take();
        }
    }
}

impl Content {
    pub(super) fn stream(self, bound: Duration, watch: Option<Box<Watch>>) -> ResponseBody {
        ResponseBody::streamed(self.kept, self.rest, bound, watch)
    }

    /// Reads up to the end or to [`KEPT`] bytes, and then does nothing more.
    async fn read_ahead(&mut self) -> Infallible {
        let mut read = 0;
        while read < KEPT {
            let Some(frame) = poll_fn(|cx| self.rest.poll_frame(cx)).await else {
                self.rest.let_go();
                break;
            };
            read += frame
                .as_ref()
                .ok()
                .and_then(Frame::data_ref)
                .map_or(0, Bytes::len);
            let cut = frame.is_err();
            // An error too: to the client the answer ends where it ended for us.
            self.kept.push_back(frame);
            if cut {
                break;
            }
        }
        std::future::pending().await
    }
}

impl Proxy {
    /// Gets a newer token than `generation` and sends the request once more with it; where that cannot be done, the
    /// first answer passes whole, with a note that says why.
    pub(super) async fn cure(
        &self,
        mut first: Answer,
        head: &mut Parts,
        body: &RequestBody,
        generation: u64,
    ) -> Answer {
        let grant = &self.settings.grant;
        if let Some(lost) = body.lost() {
            grant.report(generation);
            return first.not_replayed(lost.to_string());
        }
        body.pause();
        let newer = tokio::select! {
            // What has come is read first: the connection of an answer that is all there is free for the replay.
            biased;
            never = first.response.body_mut().read_ahead() => match never {},
            newer = grant.reject(generation) => newer,
        };
        let bearer = match newer {
            Ok(bearer) => bearer,
            Err(reason) => {
                // Upstream may want all of the request before it ends its answer.
                body.resume();
                return first.not_replayed(reason.to_string());
            }
        };
        head::authorize(&mut head.headers, bearer.header.clone());
        let newer = bearer.generation;
        let replayed = match head::has_upgrade(&head.headers) {
            true => self.ask_for_websocket(head, body, bearer).await,
            false => self.send(head, body, Some(bearer)).await,
        };
        match replayed {
            Ok(second) => {
                let is_cured = second.status() != StatusCode::UNAUTHORIZED;
                if let Some(generation) = newer {
                    grant.replayed(generation, is_cured);
                }
                second.replayed()
            }
            Err(error) => {
                body.resume();
                first.not_replayed(format!("the replay got no answer: {error}"))
            }
        }
    }
}
