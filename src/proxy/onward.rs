//! Requests in the clear for hosts that are not upstream: they are passed on as any proxy does it (RFC 9110 section 7.6),
//! without our token, over a connection of their own.

use http::header::HeaderValue;
use http::request::Parts;
use http::{Response, StatusCode, Version};
use tokio_util::task::AbortOnDropHandle;

use super::body::{RequestBody, ResponseBody};
use super::connection::Connection;
use super::cure::Answer;
use super::head::{self, Names};
use super::reply::Refusal;
use super::send_error::SendError;
use super::upstream::overdue;
use super::upstream_body::UpstreamBody;
use super::{Proxy, origin_form};
use crate::config::Scheme;
use crate::dial;
use crate::intercept::connect::{Destination, Forwarding, Reason};

impl Proxy {
    /// Passes a request on to its host, and the answer back.
    pub(super) async fn pass_on(
        &self,
        forwarding: &Forwarding,
        to: Destination,
        head: &mut Parts,
        names: Names,
        body: &RequestBody,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if names.has(Names::VIA) && head::is_loop(&head.headers) {
            return Err(Refusal::looped());
        }
        if !head::may_go_on(&head.method, &mut head.headers) {
            return Err(Refusal::no_more_forwards());
        }
        let authority = head.uri.authority().map(|authority| authority.as_str());
        let host = authority.and_then(|authority| HeaderValue::from_str(authority).ok());
        let host = host.ok_or_else(|| Refusal::elsewhere(&Reason::Malformed))?;
        let shown = to.host.clone();
        let stream = self.reach(forwarding, to, Scheme::Http).await?;
        head::prepare_onward(&mut head.headers, names, head.version, host);
        head.uri = origin_form(&head.uri);
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let answer = self.ask_onward(stream, head, body).await;
        let answer = answer.map_err(|error| Refusal::onward(&shown, error))?;
        let mut response = answer.response;
        head::prepare_answer_from_onward(&mut response, answer.names);
        Ok(response.map(|content| content.stream(self.settings.body_timeout, None)))
    }

    async fn ask_onward(
        &self,
        stream: dial::Stream,
        head: &Parts,
        body: &RequestBody,
    ) -> Result<Answer, SendError> {
        let Connection {
            mut sender,
            driver,
            resumed,
            mut alarm,
            ..
        } = *Connection::begin(stream).await?;
        let driver = tokio::task::spawn_local(async move {
            // How it ends, the answer says.
            let _ = driver.await;
        });
        let driver = AbortOnDropHandle::new(driver);
        let request = body.attempt_with(head.clone());
        let bounds = self.settings.target.bounds();
        let response = tokio::select! {
            biased;
            answered = sender.send_request(request) => answered.map_err(unanswered)?,
            error = overdue(bounds, body, resumed, &mut alarm) => return Err(error),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Switched);
        }
        let response =
            response.map(|incoming| UpstreamBody::alone(incoming, driver, self.upstream.clone()));
        Answer::plain(response, None)
    }
}

fn unanswered(error: hyper::Error) -> SendError {
    if error.is_parse() {
        SendError::Garbage(error)
    } else if error.is_user() {
        SendError::request_body(error)
    } else {
        SendError::Ended(error)
    }
}
