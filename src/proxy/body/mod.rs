//! Bodies on their way.
//!
//! `request`: what goes to upstream, once or again, from one `recording`; its `recorder` keeps what has passed, in memory
//! and in a `spool`, within the limits of all [`Recordings`]; an `expectation` keeps it with the client for now.
//! `response`: what comes back. `activity`: whether a connection is done with both.

mod activity;
mod expectation;
mod recorder;
mod recording;
mod recordings;
mod request;
mod response;
mod spool;

pub use activity::{Activity, Busy};
pub use recorder::Lost;
pub use recording::{Failed, Progress};
pub use recordings::Recordings;
pub use request::{Outgoing, OutgoingError, RequestBody};
pub use response::{BodyError, Kept, ResponseBody};
