//! Grants in the store, as the program itself would have left them.

use std::time::{Duration, SystemTime};

use lucid_proxy::sandbox::Behaviour;
use lucid_proxy::token::record::Record;
use lucid_proxy::token::store::Store;

use super::World;

impl World {
    /// With a stored login whose access token has died.
    pub(crate) fn expired() -> Self {
        Self::expired_behaving(Behaviour::default())
    }

    /// The same, with a stand-in that behaves so.
    pub(crate) fn expired_behaving(behaviour: Behaviour) -> Self {
        let world = Self::behaving(behaviour);
        world.store_expired();
        world
    }

    /// Stores a fresh grant whose access token has died, for the clock and for the stand-in.
    pub(crate) fn store_expired(&self) {
        let mut record = self.approved(1);
        record.expires_at = SystemTime::now() - Duration::from_secs(60);
        record.issued_at = record.expires_at - Duration::from_secs(3600);
        self.store_record(&record);
        self.sandbox.expire_access_tokens();
    }

    /// A fresh grant as a record of this generation, not stored yet.
    pub(crate) fn approved(&self, generation: u64) -> Record {
        let pair = serde_json::to_vec(&self.sandbox.approve()).expect("JSON");
        let mut record = Record::from_json(&pair).expect("a record");
        record.generation = Some(generation);
        record
    }

    /// The record in the store.
    pub(crate) fn record(&self) -> Record {
        let read = Store::new(self.store()).read().expect("readable");
        read.expect("a record")
    }

    /// Stores a record, without asking for the lock.
    pub(crate) fn store_record(&self, record: &Record) {
        Store::new(self.store()).write(record).expect("written");
    }

    /// Stores what is stored, changed.
    pub(crate) fn edit_record(&self, edit: impl FnOnce(&mut Record)) {
        let mut record = self.record();
        edit(&mut record);
        self.store_record(&record);
    }
}
