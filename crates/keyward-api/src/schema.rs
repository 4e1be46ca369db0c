//! How values of other crates and bounded texts look in the OpenAPI document.
//!
//! The limits are those of [`crate::bounds`], so that what is printed is what is checked.

use keyward_core::environment::Environment as CoreEnvironment;
use keyward_core::id::ID_DIGITS;
use keyward_core::key::{
    Exposure as CoreExposure, KeyState as CoreKeyState, RevokeReason as CoreRevokeReason,
};
use serde_json::{Value, json};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, Object, ObjectBuilder, Schema, SchemaFormat, SchemaType,
    Type,
};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};

use crate::bounds;

macro_rules! schema {
    ($($name:ident => $build:expr;)*) => {$(
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                $build.into()
            }
        }

        impl ToSchema for $name {}
    )*};
}

fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

fn bounded(description: &str, min: usize, max: usize) -> Object {
    text(description).min_length(Some(min)).max_length(Some(max)).build()
}

fn id(prefix: &str, description: &str) -> Object {
    let digits = "0".repeat(ID_DIGITS - 1);
    text(description)
        .pattern(Some(format!("^{prefix}_[0-9A-Za-z]{{{ID_DIGITS}}}$")))
        .examples([json!(format!("{prefix}_{digits}7"))])
        .build()
}

fn words<'a>(description: &str, words: impl IntoIterator<Item = &'a str>) -> Object {
    text(description)
        .enum_values(Some(words.into_iter().map(Value::from).collect::<Vec<_>>()))
        .build()
}

fn number(description: &str, min: u32, max: u32) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some(description))
        .minimum(Some(min))
        .maximum(Some(max))
}

fn list_of<T: ToSchema>(description: &str, min: usize, max: usize) -> ArrayBuilder {
    ArrayBuilder::new()
        .items(T::schema())
        .description(Some(description))
        .min_items(Some(min))
        .max_items(Some(max))
}

schema! {
    NodeId => id("nod", "The id of a node.");
    TenantId => id("ten", "The id of a tenant.");
    UserId => id("usr", "The id of a user: a person or a service account.");
    KeyId => id("key", "The id of an API key, which also stands in its token.");
    AdminTokenId => id("adm", "The id of an admin token.");
    AuditEventId => id("aud", "The id of an audit event.");
    Instant => text("An instant, RFC 3339 in UTC.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples([json!("2027-02-20T23:59:00.000Z")])
        .build();
    ErrorCode => words(
        "The code of an error, for programs.",
        keyward_core::ErrorCode::ALL.iter().map(|code| code.as_str()),
    );
    ErrorDetails => ObjectBuilder::new()
        .description(Some("Particulars of an error."))
        .property("docUrl", text("Where this error is explained."))
        .property("failed", text("The check that refused."))
        .property("field", text("The field whose value was at fault."))
        .required("docUrl")
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .build();
    RefusalDetails => ObjectBuilder::new()
        .description(Some("Particulars of a refusal."))
        .property("failed", text("The check that refused."))
        .additional_properties(Some(AdditionalProperties::FreeForm(true)))
        .build();
    Environment => words(
        "Where a key is valid.",
        CoreEnvironment::ALL.map(CoreEnvironment::as_str),
    );
    KeyState => words(
        "Whether a key works, computed from its instants. There is no pause.",
        [CoreKeyState::Active, CoreKeyState::Expired, CoreKeyState::Revoked]
            .map(CoreKeyState::as_str),
    );
    Exposure => words(
        "How a key got where others may have seen it.",
        CoreExposure::ALL.map(CoreExposure::as_str),
    );
    RevokeReason => words(
        "Why a key was revoked.",
        CoreRevokeReason::ALL.map(CoreRevokeReason::as_str),
    );
    RevokeReasonChoice => words(
        "Why the key is to be revoked.",
        CoreRevokeReason::ALL
            .into_iter()
            .filter(|reason| crate::keys::may_be_chosen(*reason))
            .map(CoreRevokeReason::as_str),
    );
    Name => bounded("A name people read.", 1, bounds::MAX_NAME_CHARS);
    Description => bounded("Free text.", 0, bounds::MAX_DESCRIPTION_CHARS);
    Comment => bounded("A remark for the audit trail.", 0, bounds::MAX_COMMENT_CHARS);
    Slug => text("A lower-case word that names a tenant in commands and files.")
        .pattern(Some("^[a-z][a-z0-9-]*$"))
        .min_length(Some(1))
        .max_length(Some(bounds::MAX_SLUG_BYTES))
        .examples([json!("acme-inc")])
        .build();
    Email => text("An e-mail address.")
        .format(Some(SchemaFormat::Custom("email".to_owned())))
        .max_length(Some(bounds::MAX_EMAIL_BYTES))
        .examples([json!("ada@example.com")])
        .build();
    RoleName => bounded("The name of a role of the product.", 1, bounds::MAX_ROLE_BYTES);
    ScopeName => text("The name of a scope of the product, two segments with ':' between.")
        .min_length(Some(3))
        .max_length(Some(bounds::MAX_SCOPE_BYTES))
        .examples([json!("reports:read")])
        .build();
    ScopeNames => list_of::<ScopeName>("Names of scopes.", 1, bounds::MAX_SCOPES);
    Network => text("An address or a network in CIDR notation.")
        .max_length(Some(bounds::MAX_NETWORK_BYTES))
        .examples([json!("203.0.113.0/24"), json!("2001:db8::/32")])
        .build();
    Networks => list_of::<Network>(
        "The networks a key may be used from. An empty list allows every address.",
        0,
        bounds::MAX_NETWORKS,
    );
    KeyDays => number("Days until the key expires.", 1, bounds::MAX_KEY_DAYS).build();
    AdminTokenDays => number("Days until the token expires.", 1, bounds::MAX_ADMIN_TOKEN_DAYS)
        .default(Some(json!(bounds::DEFAULT_ADMIN_TOKEN_DAYS)))
        .build();
    OverlapSeconds => number(
        "Seconds in which the old key keeps working. 0 revokes it at once.",
        0,
        bounds::MAX_OVERLAP_SECONDS,
    )
    .default(Some(json!(bounds::DEFAULT_OVERLAP_SECONDS)))
    .build();
    RateLimit => ObjectBuilder::new()
        .description(Some("How many requests a key may make in a window."))
        .property("limit", number("Requests per window.", 1, bounds::MAX_RATE_LIMIT))
        .property(
            "windowSeconds",
            number("Length of the window in seconds.", 1, bounds::MAX_RATE_WINDOW_SECONDS),
        )
        .property(
            "burst",
            number(
                "Requests that may come at once; as many as `limit` when absent or null.",
                1,
                bounds::MAX_RATE_LIMIT,
            )
            .schema_type(SchemaType::from_iter([Type::Integer, Type::Null])),
        )
        .required("limit")
        .required("windowSeconds")
        .build();
    HttpMethod => bounded("An HTTP method.", 1, bounds::MAX_METHOD_BYTES);
    Path => bounded("The path of a call, with or without query.", 1, bounds::MAX_PATH_BYTES);
    IpAddress => bounded("An IPv4 or IPv6 address.", 2, bounds::MAX_IP_BYTES);
    HeaderValue => bounded("The value of a header.", 0, bounds::MAX_HEADER_VALUE_BYTES);
    Password => text("A password, never shown or logged.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Password)))
        .min_length(Some(bounds::MIN_PASSWORD_CHARS))
        .max_length(Some(bounds::MAX_PASSWORD_CHARS))
        .write_only(true)
        .build();
    Epoch => ObjectBuilder::new()
        .schema_type(Type::Integer)
        .description(Some("The number of a change of authority."))
        .minimum(Some(0_u32))
        .build();
    Cost => number("How many requests the call counts for.", 1, bounds::MAX_COST)
        .default(Some(json!(1)))
        .build();
}

/// The schemas that path parameters refer to.
pub(crate) fn path_ids(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.extend([
        (Epoch::name().into_owned(), Epoch::schema()),
        (TenantId::name().into_owned(), TenantId::schema()),
        (UserId::name().into_owned(), UserId::schema()),
        (KeyId::name().into_owned(), KeyId::schema()),
        (AdminTokenId::name().into_owned(), AdminTokenId::schema()),
        (AuditEventId::name().into_owned(), AuditEventId::schema()),
    ]);
}
