//! Ends an upload whose answer nobody wants any longer, or the rest of which nobody sees to behind a whole answer.
//!
//! On a connection of its own an upload ends when the connection is dropped. On a shared one the task that sends it would
//! wait for ever: for more of it, or for upstream to take what there is.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Held by whoever reads the answer.
#[derive(Debug)]
pub(super) struct Leash(Rc<State>);

/// Held by the content while it is sent.
#[derive(Debug)]
pub(super) struct Leashed(Rc<State>);

/// Asked by whoever runs the task that sends the content.
#[derive(Debug)]
pub(super) struct Keeper(Rc<State>);

#[derive(Debug, Default)]
struct State {
    let_go: Cell<bool>,
    sent: Cell<bool>,
    /// Who waits for the one or the other.
    keeper: RefCell<Option<Waker>>,
    holder: RefCell<Option<Waker>>,
}

/// Both ends of one.
pub(super) fn leash() -> (Leash, Leashed) {
    let state = Rc::new(State::default());
    (Leash(state.clone()), Leashed(state))
}

impl Leash {
    /// Whether there is nothing left to end.
    pub(super) fn is_sent(&self) -> bool {
        self.0.sent.get()
    }

    /// Completes when there is nothing left to end.
    pub(super) async fn sent(self) {
        poll_fn(|cx| poll(&self.0.sent, &self.0.holder, cx)).await;
    }
}

impl Leashed {
    /// For the task that will send the content.
    pub(super) fn keeper(&self) -> Keeper {
        Keeper(self.0.clone())
    }
}

impl Keeper {
    /// Whether the content is gone already.
    pub(super) fn is_sent(&self) -> bool {
        self.0.sent.get()
    }

    /// Ready when the answer is not wanted any longer.
    pub(super) fn poll_let_go(&self, cx: &Context<'_>) -> Poll<()> {
        poll(&self.0.let_go, &self.0.keeper, cx)
    }
}

fn poll(done: &Cell<bool>, waiting: &RefCell<Option<Waker>>, cx: &Context<'_>) -> Poll<()> {
    if done.get() {
        return Poll::Ready(());
    }
    let mut waiting = waiting.borrow_mut();
    match &mut *waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
    Poll::Pending
}

fn tell(done: &Cell<bool>, waiting: &RefCell<Option<Waker>>) {
    done.set(true);
    let waiting = waiting.borrow_mut().take();
    if let Some(waiting) = waiting {
        waiting.wake();
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        tell(&self.0.let_go, &self.0.keeper);
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        tell(&self.0.sent, &self.0.holder);
    }
}
