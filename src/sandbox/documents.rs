//! Documents: search, create, import, export, trash; and the embeds that show them.

use http::StatusCode;
use http::header::ACCEPT;
use serde_json::{Map, Value, json};

use super::image::Format;
use super::intake::{Content, Form};
use super::library::{Document, PAGES};
use super::paging;
use super::reply::{self, Fault, Reply};
use super::resources::Call;

/// The embed token that `GET /embeds?token=` accepts, and that `POST /embeds/token` issues.
pub const EMBED_TOKEN: &str = "embed-sandbox";

const PRODUCTS: [&str; 3] = ["lucidchart", "lucidspark", "lucidscale"];

/// What an import accepts as its type, be it the part's own content type or the field `type`.
const IMPORT_TYPES: [&str; 5] = [
    "x-application/vnd.lucid.standardImport",
    "x-application/vnd.lucid.drawio",
    "x-application/vnd.lucid.visio",
    "x-application/vnd.lucid.gliffy",
    "application/pdf",
];

const READ: [&str; 3] = [
    "lucidchart.document.content:readonly",
    "lucidspark.document.content:readonly",
    "lucid.document.content:readonly",
];

const WRITE: [&str; 3] = [
    "lucidchart.document.content",
    "lucidspark.document.content",
    "lucid.document.content",
];

/// `POST /documents/search`
pub(super) fn search(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&READ)?;
    let wishes = object(call)?;
    let keywords = wishes
        .get("keywords")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_lowercase();
    let products = wishes.get("product").and_then(Value::as_array);
    let matches = |document: &&Document| {
        document.title.to_lowercase().contains(&keywords)
            && products.is_none_or(|products| {
                products
                    .iter()
                    .any(|product| *product == document.product.as_str())
            })
    };
    let found = call
        .shared
        .library()
        .documents()
        .filter(matches)
        .map(Document::to_json)
        .collect();
    paging::answer(call, found)
}

/// `POST /documents`: JSON creates, a form imports.
pub(super) fn create(call: &Call<'_>) -> Result<Reply, Fault> {
    if matches!(call.received.content, Content::Form(_)) {
        return import(call);
    }
    call.require_scope(&WRITE)?;
    let wishes = object(call)?;
    let title = wishes
        .get("title")
        .and_then(Value::as_str)
        .unwrap_or("Untitled");
    let product = product(wishes.get("product").and_then(Value::as_str))?;
    Ok(reply::json(
        StatusCode::CREATED,
        &call.shared.library().add(title, product),
    ))
}

/// `POST /documents/import`, `POST /documents/create`
pub(super) fn import(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&WRITE)?;
    let form = match &call.received.content {
        Content::Form(form) => form,
        Content::Malformed(reason) => return Err(Fault::bad_request(reason.clone())),
        Content::Opaque | Content::Json(_) => {
            return Err(Fault::of(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
    };
    let (title, product) = check_import(form)?;
    Ok(reply::json(
        StatusCode::CREATED,
        &call.shared.library().add(title, product),
    ))
}

/// The title and the product of an import that has all its parts.
fn check_import(form: &Form) -> Result<(&str, &str), Fault> {
    let file = form.file.as_ref().filter(|file| file.length > 0);
    let file = file.ok_or_else(|| Fault::bad_request("The part file is missing or empty"))?;
    let field = |name: &str| form.fields.get(name).map(String::as_str);
    let type_of_file = field("type")
        .or(file.content_type.as_deref())
        .unwrap_or_default();
    if !IMPORT_TYPES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(type_of_file))
    {
        return Err(Fault::of(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    let title = field("title")
        .or(file.name.as_deref())
        .unwrap_or("Untitled");
    Ok((title, product(field("product"))?))
}

fn product(name: Option<&str>) -> Result<&str, Fault> {
    name.filter(|name| PRODUCTS.contains(name))
        .ok_or_else(|| Fault::bad_request("product must be lucidchart, lucidspark or lucidscale"))
}

/// The body, if it is a JSON object.
fn object<'a>(call: &Call<'a>) -> Result<&'a Map<String, Value>, Fault> {
    match &call.received.content {
        Content::Json(Value::Object(object)) => Ok(object),
        Content::Malformed(reason) => Err(Fault::bad_request(reason.clone())),
        _ => Err(Fault::bad_request(
            "The body must be a JSON object with Content-Type: application/json",
        )),
    }
}

/// Runs `view` on a document.
fn with_document<T>(
    call: &Call<'_>,
    id: &str,
    view: impl FnOnce(&Document) -> T,
) -> Result<T, Fault> {
    let seen = call.shared.library().find(id).map(view);
    seen.ok_or_else(|| missing(call))
}

/// Tells that there is no such object, in the way that the behaviour says.
fn missing(call: &Call<'_>) -> Fault {
    Fault::of(call.shared.behaviour.borrow().missing_object_status)
}

/// `GET /documents/{id}`: what it is, or how one of its pages looks.
pub(super) fn get(call: &Call<'_>, id: &str) -> Result<Reply, Fault> {
    call.require_scope(&READ)?;
    let document = with_document(call, id, Document::to_json)?;
    match wanted(call)? {
        None => Ok(reply::json(StatusCode::OK, &document)),
        Some(format) => export(call, format),
    }
}

/// The image format that `Accept` asks for, or none for JSON.
fn wanted(call: &Call<'_>) -> Result<Option<Format>, Fault> {
    let mut ranges = Vec::new();
    for value in call.head.headers.get_all(ACCEPT) {
        // Parameters such as `;dpi=256` change the picture, and this one has a single pixel.
        let value = value.to_str().unwrap_or_default();
        ranges.extend(
            value
                .split(',')
                .map(|range| range.split(';').next().unwrap_or_default().trim()),
        );
    }
    if ranges.is_empty() {
        return Ok(None);
    }
    let known = ranges.iter().find_map(|range| match *range {
        "image/png" => Some(Some(Format::Png)),
        "image/jpeg" => Some(Some(Format::Jpeg)),
        "*/*" | "application/*" | "application/json" => Some(None),
        _ => None,
    });
    known.ok_or_else(|| Fault::of(StatusCode::NOT_ACCEPTABLE))
}

fn export(call: &Call<'_>, format: Format) -> Result<Reply, Fault> {
    match (call.query("page"), call.query("pageId")) {
        (Some(_), Some(_)) => return Err(Fault::bad_request("page and pageId exclude each other")),
        (Some(page), None)
            if !page
                .parse()
                .is_ok_and(|page: u64| (1..=PAGES).contains(&page)) =>
        {
            return Err(Fault::of(StatusCode::NOT_FOUND));
        }
        _ => {}
    }
    let behaviour = call.shared.behaviour.borrow();
    let image = call
        .shared
        .images
        .get(format, behaviour.image_bytes, behaviour.image_block);
    Ok(reply::paced(
        format.content_type(),
        image,
        behaviour.image_pause,
    ))
}

/// `GET /documents/{id}/contents`
pub(super) fn contents(call: &Call<'_>, id: &str) -> Result<Reply, Fault> {
    call.require_scope(&READ)?;
    let contents = with_document(call, id, |document| {
        json!({
            "id": document.id, "title": document.title, "product": document.product,
            "pages": [], "data": { "collections": [] },
        })
    })?;
    Ok(reply::json(StatusCode::OK, &contents))
}

/// `POST /documents/{id}/trash`
pub(super) fn trash(call: &Call<'_>, id: &str) -> Result<Reply, Fault> {
    call.require_scope(&WRITE)?;
    if !call.shared.library().trash(id) {
        return Err(missing(call));
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// `POST /embeds/token`
pub(super) fn embed_token(call: &Call<'_>) -> Result<Reply, Fault> {
    call.require_scope(&READ)?;
    Ok(reply::whole(StatusCode::OK, "application/jwt", EMBED_TOKEN))
}

/// `GET /embeds?token=`: its 401 is about that token, so no refresh cures it.
pub(super) fn embeds(call: &Call<'_>) -> Result<Reply, Fault> {
    if call.query("token").is_none_or(|token| token != EMBED_TOKEN) {
        return Err(Fault::of(StatusCode::UNAUTHORIZED));
    }
    Ok(reply::whole(
        StatusCode::OK,
        "text/html; charset=utf-8",
        "<!DOCTYPE html><title>Embed</title>",
    ))
}
