//! Bodies on their way.
//!
//! `request`: what goes to upstream, once or again, each time as an `outgoing`, from one `recording`. Its `recorder` keeps
//! what has passed, in memory and in a `spool`, within the limits of all [`Recordings`]; an `expectation` keeps the rest
//! with the client for now. `response`: what comes back. `activity`: whether a connection is done with both.

mod activity;
mod expectation;
mod outgoing;
mod pace;
mod recorder;
mod recording;
mod recordings;
mod request;
mod response;
mod spool;

pub use activity::{Activity, Busy, InFlight, Unread};
pub use outgoing::{Outgoing, OutgoingError};
pub use pace::Pace;
pub use recorder::Lost;
pub use recording::{Failed, Progress};
pub use recordings::Recordings;
pub use request::RequestBody;
pub use response::{BodyError, Kept, ResponseBody};
