//! Whose login is in the store, and whether another may take its place (rule T19).

use crate::secret::{ExposeSecret, Secret};
use crate::token::answer::{Introspection, Owner};
use crate::token::endpoint::TokenEndpoint;
use crate::token::record::Record;
use crate::token::store::Store;

/// Whose login a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    /// There is none that could still work.
    Nobody,
    Of(Owner),
    /// There is one that may work, and it does not say.
    Unknown,
}

/// What was found out about the login in the store before another was asked for.
#[derive(Debug)]
pub(super) struct Before {
    /// Standing and refresh token of a login that does not say itself whose it is.
    found_out: Option<(Secret, Standing)>,
    replace: bool,
}

impl Standing {
    fn of(record: Option<&Record>) -> Self {
        let living = |record: &&Record| record.refusal.is_none() && record.logged_out.is_none();
        match record.filter(living).map(Owner::of) {
            None => Self::Nobody,
            Some(owner) if owner.is_known() => Self::Of(owner),
            Some(_) => Self::Unknown,
        }
    }
}

impl Before {
    /// Finds out whose login is in the store; where that cannot be, only `replace` lets another begin.
    ///
    /// # Errors
    ///
    /// When it remains unknown.
    pub(super) async fn find_out(
        store: &Store,
        present: Option<&Record>,
        endpoint: &TokenEndpoint,
        replace: bool,
    ) -> Result<Self, String> {
        let mut before = Self {
            found_out: None,
            replace,
        };
        let Some(present) = present.filter(|_| !replace) else {
            return Ok(before);
        };
        if Standing::of(Some(present)) == Standing::Unknown {
            let standing = ask(present, endpoint).await.map_err(|why| {
                format!(
                    "{} holds a login that may still work, and it cannot be found out whose it is ({why}); to replace it all the same: lucid-proxy login --replace",
                    store.path().display()
                )
            })?;
            before.found_out = Some((present.refresh_token.clone(), standing));
        }
        Ok(before)
    }

    /// Whether it matters whose the new login is.
    pub(super) fn is_particular(&self, present: Option<&Record>) -> bool {
        !self.replace && self.standing(present) != Standing::Nobody
    }

    /// Whether a login of `owner` may take the place of what is in the store; the reason why not.
    pub(super) fn may_follow(&self, present: Option<&Record>, owner: &Owner) -> Result<(), String> {
        let why = match self.standing(present) {
            _ if self.replace => return Ok(()),
            Standing::Nobody => return Ok(()),
            Standing::Of(present) if present == *owner => return Ok(()),
            Standing::Of(present) => {
                format!("the store holds a login of {present}, and this one is of {owner}")
            }
            Standing::Unknown => format!(
                "the store holds another login by now, and it does not say whether it is of {owner} too"
            ),
        };
        let account = match owner.account_id {
            Some(_) => " --account",
            None => "",
        };
        Err(format!(
            "{why}; to replace it: lucid-proxy login{account} --replace"
        ))
    }

    fn standing(&self, present: Option<&Record>) -> Standing {
        match (Standing::of(present), present, &self.found_out) {
            (Standing::Unknown, Some(present), Some((token, standing)))
                if present.refresh_token.expose_secret() == token.expose_secret() =>
            {
                standing.clone()
            }
            (standing, ..) => standing,
        }
    }
}

/// Asks introspection about both tokens, since only one of them may live. The reason where that does not tell.
async fn ask(record: &Record, endpoint: &TokenEndpoint) -> Result<Standing, String> {
    let mut why = "introspection does not say".to_owned();
    for token in [&record.refresh_token, &record.access_token] {
        if token.expose_secret().is_empty() {
            continue;
        }
        match endpoint.introspect(token).await {
            Introspection::Active(owner) if owner.is_known() => return Ok(Standing::Of(owner)),
            Introspection::Active(_) => {}
            // Without it the login is over, or it was another application's: of no use here either way.
            Introspection::Inactive => return Ok(Standing::Nobody),
            Introspection::BadClient => return Err("the client id or secret is wrong".to_owned()),
            Introspection::Unknown(message) => why = message,
        }
    }
    Err(why)
}

/// Whose a pair is that was issued without saying so.
pub(super) async fn of_new(record: &Record, endpoint: &TokenEndpoint) -> Owner {
    match endpoint.introspect(&record.access_token).await {
        Introspection::Active(owner) => owner,
        _ => Owner::default(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::token::record::Refusal;

    fn user(id: u64) -> Owner {
        Owner {
            user_id: Some(id),
            account_id: None,
        }
    }

    fn record(owner: &Owner) -> Record {
        Record {
            user_id: owner.user_id,
            account_id: owner.account_id,
            ..Record::from_refresh_token(Secret::from("present"), SystemTime::UNIX_EPOCH)
        }
    }

    fn before(found_out: Option<(&str, Standing)>) -> Before {
        Before {
            found_out: found_out.map(|(token, standing)| (Secret::from(token), standing)),
            replace: false,
        }
    }

    #[test]
    fn t19_only_the_same_owner_follows_unasked() {
        let before = before(None);
        let mine = record(&user(4711));
        let allowed = |present: Option<&Record>, owner| before.may_follow(present, &owner);
        assert_eq!(allowed(None, user(5)), Ok(()));
        assert_eq!(allowed(Some(&mine), user(4711)), Ok(()));
        let account = Owner {
            user_id: None,
            account_id: Some(4711),
        };
        for other in [user(5), account, Owner::default()] {
            let refused = allowed(Some(&mine), other).expect_err("another's");
            assert!(refused.contains("user 4711"), "{refused}");
            assert!(refused.contains("--replace"), "{refused}");
        }
        assert!(allowed(Some(&record(&Owner::default())), user(5)).is_err());
        let replacing = Before {
            replace: true,
            ..before
        };
        assert_eq!(replacing.may_follow(Some(&mine), &user(5)), Ok(()));
    }

    #[test]
    fn t19_a_login_that_is_over_may_be_followed_by_anybodys() {
        let refusal = Refusal {
            about_client: false,
            code: "invalid_grant".to_owned(),
            message: String::new(),
            at: SystemTime::UNIX_EPOCH,
            client: String::new(),
        };
        let refused = Record {
            refusal: Some(refusal),
            ..record(&user(4711))
        };
        let logged_out = Record {
            logged_out: Some(SystemTime::UNIX_EPOCH),
            ..record(&user(4711))
        };
        for over in [refused, logged_out] {
            assert_eq!(before(None).may_follow(Some(&over), &user(5)), Ok(()));
            assert!(!before(None).is_particular(Some(&over)));
        }
        assert!(before(None).is_particular(Some(&record(&user(4711)))));
    }

    #[test]
    fn t19_what_was_found_out_counts_for_that_pair_only() {
        let silent = record(&Owner::default());
        let found_out = |token, standing| before(Some((token, standing)));
        let known = found_out("present", Standing::Of(user(4711)));
        assert_eq!(known.may_follow(Some(&silent), &user(4711)), Ok(()));
        assert!(known.may_follow(Some(&silent), &user(5)).is_err());
        let dead = found_out("present", Standing::Nobody);
        assert_eq!(dead.may_follow(Some(&silent), &user(5)), Ok(()));
        let another = found_out("another", Standing::Of(user(4711)));
        assert!(another.may_follow(Some(&silent), &user(4711)).is_err());
    }
}
