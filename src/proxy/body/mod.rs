//! Bodies on their way.
//!
//! `request`: what goes to upstream, once or again; `recorder` keeps what has passed of it, in memory and in a `spool`,
//! within the limits of all [`Recordings`]. `response`: what comes back. `activity`: whether a connection is done with
//! both.

mod activity;
mod recorder;
mod recordings;
mod request;
mod response;
mod spool;

pub use activity::{Activity, Busy};
pub use recorder::Lost;
pub use recordings::Recordings;
pub use request::{Failed, Outgoing, OutgoingError, Progress, RequestBody};
pub use response::{BodyError, Kept, ResponseBody};
