//! `grant_type=authorization_code` at the token endpoint: a code becomes a grant.

use chrono::Utc;

use super::behaviour::Reuse;
use super::codes::CodeRefusal;
use super::parameters::Parameters;
use super::reply::Reply;
use super::shared::Shared;
use super::token_answer::{bad_client_elsewhere, bad_code, bad_verifier, granted};
use super::token_endpoint::is_client;

/// What allows a grant to be refreshed, and without which no refresh token is told.
const OFFLINE_ACCESS: &str = "offline_access";

/// Redeems a code. A refusal costs it nothing.
pub(super) fn exchange(shared: &Shared, parameters: &Parameters) -> Result<Reply, Box<Reply>> {
    let (reuse, bad_code_status, bad_client_status) = {
        let behaviour = shared.behaviour.borrow();
        (
            behaviour.code_reuse,
            behaviour.bad_code_status,
            behaviour.bad_client_status,
        )
    };
    if !is_client(parameters) {
        return Err(Box::new(bad_client_elsewhere(bad_client_status)));
    }
    let terms = shared.terms();
    let now = Utc::now();
    let outcome = shared.codes().redeem(
        parameters.value("code"),
        parameters.value("redirect_uri"),
        parameters.get("code_verifier"),
        now,
        |approval| {
            let scopes = approval.scopes.clone();
            let pair = shared.grants().approve(scopes, approval.owner, terms, now);
            let access_token = pair.access_token.clone();
            (pair, access_token)
        },
    );
    match outcome {
        Ok(pair) => {
            shared.ledger.update(|counts| counts.code_exchanges += 1);
            let refreshable = pair.scopes.iter().any(|scope| scope == OFFLINE_ACCESS);
            Ok(granted(shared, pair, refreshable))
        }
        Err(CodeRefusal::Verifier) => Err(Box::new(bad_verifier())),
        Err(refusal) => {
            if let CodeRefusal::Used(access_token) = &refusal
                && reuse == Reuse::RevokeGrant
            {
                shared.grants().revoke(access_token);
            }
            Err(Box::new(bad_code(bad_code_status)))
        }
    }
}
