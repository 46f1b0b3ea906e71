//! Where a head is larger than it may be (rule S7), and how it is cut off.

use super::{Framing, Position};
use crate::config::HeadLimits;
use crate::proxy::ambiguity::Unservable;

/// Bytes of a request line that hyper gets where it is too long: enough to find out from the log what was asked for.
pub(super) const SHOWN: usize = 256;

/// Where a head is cut off.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) struct Cut {
    /// How many of the bytes that were followed last are still to be read.
    pub(in crate::server) kept: usize,
    /// What is to be read behind them, and then nothing.
    pub(in crate::server) ending: &'static [u8],
}

impl Framing {
    /// What is too much of the head, with what has come of a line that begins with what is kept, and goes on with `more`.
    pub(super) fn excess(&self, more: &[u8]) -> Option<Unservable> {
        let HeadLimits { bytes, .. } = self.limits;
        // The last line of a head is empty.
        let is_one_more = || self.line.is_empty() && !matches!(more, [] | [b'\r', ..]);
        match self.position {
            _ if self.size > bytes => Some(self.largest_part(more)),
            Position::Fields | Position::Refused
                if self.fields >= self.limits.fields && is_one_more() =>
            {
                Some(Unservable::TooManyFields(self.limits.fields))
            }
            // The target is shorter than its line.
            Position::Between if self.size > self.limits.target => self.target_excess(more),
            _ => None,
        }
    }

    /// What to blame for a head that is too large.
    fn largest_part(&self, more: &[u8]) -> Unservable {
        let in_target = match self.position {
            Position::Between => self.target_excess(more),
            _ => None,
        };
        in_target.unwrap_or(Unservable::HeadTooLarge(self.limits.bytes))
    }

    #[cold]
    fn target_excess(&self, more: &[u8]) -> Option<Unservable> {
        let most = self.limits.target;
        let [first, second] = self.line.spaces_with(more);
        let begin = first? + 1;
        let end = second.unwrap_or(self.line.len() + more.len());
        (end - begin > most).then_some(Unservable::TargetTooLong(most))
    }

    /// Cuts off the head of which `kept` bytes of what has come last are before a line, or before its rest, that begins
    /// with `more`.
    pub(super) fn cut(&mut self, kept: usize, more: &[u8], why: Unservable) -> Cut {
        let mut kept = kept;
        let ending = if self.position == Position::Between {
            self.requests += 1;
            let shown = SHOWN.saturating_sub(self.line.len()).min(more.len());
            self.line.push(&more[..shown]);
            kept += shown;
            self.line.ending_of_request_line()
        } else {
            self.line.ending_of_field()
        };
        self.lose(why);
        Cut { kept, ending }
    }

    /// Leaves a head whole that is too large, or what would be one. If it is one, hyper has bounds of its own for it, and it
    /// is not served.
    #[cold]
    pub(super) fn give_up(&mut self, why: Unservable) -> Option<Cut> {
        if self.position == Position::Between {
            self.requests += 1;
        }
        self.lose(why);
        None
    }

    /// Nothing is followed any more.
    fn lose(&mut self, why: Unservable) {
        self.refuse(why);
        self.position = Position::Lost;
        self.line.clear();
    }
}
