//! Ends an upload whose answer nobody wants any longer, or the rest of which nobody sees to behind a whole answer.
//!
//! On a connection of its own an upload ends when the connection is dropped. On a shared one the task that sends it would
//! wait for more for ever once nobody wants the answer any longer.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

/// Held by whoever reads the answer.
#[derive(Debug)]
pub(super) struct Leash(Rc<State>);

/// Asked by whoever sends the request.
#[derive(Debug)]
pub(super) struct Leashed(Rc<State>);

#[derive(Debug, Default)]
struct State {
    dropped: Cell<bool>,
    sender: RefCell<Option<Waker>>,
}

/// Both ends of one.
pub(super) fn leash() -> (Leash, Leashed) {
    let state = Rc::new(State::default());
    (Leash(state.clone()), Leashed(state))
}

impl Leashed {
    /// Whether the answer is not wanted any longer. If it still is, the task is woken when that changes.
    pub(super) fn is_let_go(&self, cx: &Context<'_>) -> bool {
        if self.0.dropped.get() {
            return true;
        }
        let mut sender = self.0.sender.borrow_mut();
        match &mut *sender {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *sender = Some(cx.waker().clone()),
        }
        false
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.dropped.set(true);
        let sender = self.0.sender.borrow_mut().take();
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}
