//! The token file: any bytes are a record or an error, and what was read and written reads the same again (T8, S8).

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lucid_proxy::secret::ExposeSecret;
use lucid_proxy::token::record::Record;

fuzz_target!(|bytes: &[u8]| {
    let Ok(record) = Record::from_json(bytes) else {
        return;
    };
    let again = read_again(&record);
    // What was read may say microseconds, of which no more than milliseconds are written.
    assert_eq!(
        String::from_utf8_lossy(&again.to_json()),
        String::from_utf8_lossy(&read_again(&again).to_json())
    );
    let times = |record: &Record| {
        [
            record.issued_at,
            record.expires_at,
            record.refresh_issued_at,
        ]
    };
    for (before, after) in times(&record).into_iter().zip(times(&again)) {
        let lost = before.duration_since(after);
        assert!(lost.is_ok_and(|lost| lost < Duration::from_millis(1)));
    }
    let kept = |record: &Record| {
        (
            record.access_token.expose_secret().to_owned(),
            record.refresh_token.expose_secret().to_owned(),
            record.generation.unwrap_or(0),
            record.scopes.clone(),
            (record.user_id, record.account_id),
            record.logged_out.is_some(),
            record.intent.is_some(),
            record.refusal.is_some(),
        )
    };
    assert_eq!(kept(&record), kept(&again));
});

fn read_again(record: &Record) -> Record {
    let written = record.to_json();
    Record::from_json(&written)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&written)))
}
