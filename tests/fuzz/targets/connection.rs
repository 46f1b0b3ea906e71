//! A client's bytes on a connection: whatever they are, the proxy does not panic, and upstream gets whole requests that a
//! strict reader takes apart in one way only, no more of them than the proxy took for requests (F1, F2, F15, S8).
//!
//! The client is on an in-memory pipe and is served by hyper as in `src/server/connection.rs`; upstream is on loopback,
//! and keeps its connections from one input to the next. Time is virtual.

#![no_main]

#[path = "connection/strict.rs"]
mod strict;
#[path = "connection/world.rs"]
mod world;

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use world::World;

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    WORLD.with_borrow_mut(|world| world.get_or_insert_with(World::new).serve(bytes));
});
