//! Bodies on their way: `request` records what passes towards upstream, `response` counts what passes back, and
//! `activity` knows when a connection is done with both.

mod activity;
mod request;
mod response;

pub use activity::{Activity, Busy};
pub use request::{Outgoing, OutgoingError, Progress, RequestBody};
pub use response::{BodyError, Kept, ResponseBody};
