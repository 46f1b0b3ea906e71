//! The scopes that Lucid documents.

/// All but those of documents. `data-service.admin` belongs to the Data API.
const OTHERS: [&str; 33] = [
    "offline_access",
    "user.profile",
    "account.info",
    "account.user",
    "account.user:readonly",
    "account.users:admin.readonly",
    "account.user.transfercontent",
    "account.settings:readonly",
    "account.audit.logs",
    "account.legalhold",
    "account.legalhold:readonly",
    "account.legalhold.users",
    "account.legalhold.users:readonly",
    "folder",
    "folder:readonly",
    "folder:admin",
    "folder:admin.readonly",
    "invitation",
    "invitation.accept",
    "teams",
    "teams:readonly",
    "teams:admin",
    "repository",
    "repository:readonly",
    "repository:admin",
    "licenses:admin",
    "licenses:admin.readonly",
    "cloud.credential",
    "cloud.credential:readonly",
    "cloud.datasource",
    "cloud.datasource:readonly",
    "cloud.model",
    "data-service.admin",
];

/// What the scopes of documents begin with.
const PRODUCTS: [&str; 4] = ["lucid", "lucidchart", "lucidspark", "lucidscale"];

/// Reads the parameter `scope` (RFC 6749, section 3.3): names between single spaces, at least one. Nothing when one of
/// them is not Lucid's, as after a slip of the pen.
pub(super) fn parse(text: &str) -> Option<Vec<String>> {
    let scopes = text.split(' ');
    scopes
        .map(|scope| is_known(scope).then(|| scope.to_owned()))
        .collect()
}

fn is_known(scope: &str) -> bool {
    let document = scope
        .split_once(".document.")
        .filter(|(product, _)| PRODUCTS.contains(product));
    match document {
        Some((_, rest)) => is_of_documents(rest),
        None => OTHERS.contains(&scope),
    }
}

/// Whether `rest` follows `lucidchart.document.` and its like in a scope.
fn is_of_documents(rest: &str) -> bool {
    let (what, access) = match rest.split_once(':') {
        Some((what, access)) => (what, Some(access)),
        None => (rest, None),
    };
    match (what, access) {
        ("content", Some("readonly" | "admin" | "admin.readonly") | None)
        | ("app" | "app.folder" | "accessRequest", None)
        | ("app.picker", Some("readonly") | None)
        | ("storage", Some("admin.readonly")) => true,
        (share, Some("readonly") | None) => is_share(share),
        _ => false,
    }
}

fn is_share(what: &str) -> bool {
    let kind = ["content.share", "app.picker.share"]
        .iter()
        .find_map(|start| what.strip_prefix(start));
    matches!(kind, Some("" | ".collaborator" | ".embed" | ".link"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_scopes_are_known() {
        let text = "offline_access account.legalhold.users:readonly folder:admin.readonly lucid.document.app \
                    lucidchart.document.content lucidspark.document.content:admin.readonly \
                    lucidscale.document.content.share lucid.document.content.share.embed:readonly \
                    lucidchart.document.app.picker:readonly lucid.document.app.picker.share.link \
                    lucid.document.storage:admin.readonly lucidchart.document.accessRequest";
        let scopes = parse(text).expect("all of them are documented");
        assert_eq!(scopes.join(" "), text);
    }

    #[test]
    fn slips_of_the_pen_are_not() {
        for text in [
            "",
            " offline_access",
            "offline_access  user.profile",
            "offline_access,user.profile",
            "offline-access",
            "user.profile:readonly",
            "Lucidchart.document.content",
            "lucidpress.document.content",
            "lucidchart.document.contents",
            "lucidchart.document.content:",
            "lucidchart.document.app:readonly",
            "lucidchart.document.storage",
            "lucidchart.document.content.share.all",
            "lucidchart.document.content.share:admin",
            "lucidchart.document.",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
