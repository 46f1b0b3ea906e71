//! The documents that there are: a few from the start, and what was created since.

use std::collections::VecDeque;

use chrono::{SecondsFormat, Utc};
use serde_json::{Value, json};

use super::users::{ACCOUNT_ID, USER_ID};

/// The oldest documents are forgotten beyond this: a load test may create millions.
const MOST_DOCUMENTS: usize = 256;

const TITLES: [&str; 5] = ["Plan", "Network", "Roadmap", "Floor plan", "Org chart"];

/// All documents, the oldest first.
#[derive(Debug)]
pub(super) struct Library(VecDeque<Document>);

#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) product: String,
    created: String,
    trashed: Option<String>,
}

impl Default for Library {
    fn default() -> Library {
        let document = |(number, title): (usize, &&str)| Document {
            id: format!("0b0b0b0b-0000-4000-8000-{number:012}"),
            title: (*title).to_owned(),
            product: String::from("lucidchart"),
            created: String::from("2030-01-02T03:04:05Z"),
            trashed: None,
        };
        Library((1..).zip(&TITLES).map(document).collect())
    }
}

impl Library {
    /// All of them.
    pub(super) fn documents(&self) -> impl Iterator<Item = &Document> {
        self.0.iter()
    }

    /// Moves a document to the trash; whether there is one with that id.
    pub(super) fn trash(&mut self, id: &str) -> bool {
        let document = self.0.iter_mut().find(|document| document.id == id);
        document
            .map(|document| document.trashed = Some(now()))
            .is_some()
    }

    /// The document with that id.
    pub(super) fn find(&self, id: &str) -> Option<&Document> {
        self.0.iter().find(|document| document.id == id)
    }

    /// Adds a document and tells what became of it.
    pub(super) fn add(&mut self, title: &str, product: &str) -> Value {
        if self.0.len() >= MOST_DOCUMENTS {
            self.0.pop_front();
        }
        let random = fastrand::u128(..);
        let id = format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            random as u32,
            (random >> 32) as u16,
            (random >> 48) as u16 & 0xfff,
            (random >> 64) as u16 & 0xfff,
            (random >> 80) as u64,
        );
        let (title, product) = (title.to_owned(), product.to_owned());
        let document = Document {
            id,
            title,
            product,
            created: now(),
            trashed: None,
        };
        let json = document.to_json();
        self.0.push_back(document);
        json
    }
}

impl Document {
    pub(super) fn to_json(&self) -> Value {
        let url = |view: &str| format!("https://lucid.app/{}/{}/{view}", self.product, self.id);
        json!({
            "documentId": self.id, "title": self.title, "product": self.product,
            "version": 3, "pageCount": PAGES, "canEdit": true,
            "editUrl": url("edit"), "viewUrl": url("view"),
            "created": self.created, "creatorId": USER_ID,
            "lastModified": self.created, "lastModifiedUserId": USER_ID,
            "customAttributes": [], "customTags": [], "status": null, "classification": null,
            "trashed": self.trashed, "parent": null, "accountId": ACCOUNT_ID,
            "owner": { "id": USER_ID, "type": "user", "name": "Ada Demo" },
        })
    }
}

/// Every document has this many pages.
pub(super) const PAGES: u64 = 2;

fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)
}
