//! The first administrator: by a file at start-up, by a setup link, or by a command.

use std::net::Ipv4Addr;

use keyward_api::audit::AuditAction;
use keyward_api::bounds::{self, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS};
use keyward_api::scope::ManagementScope;
use keyward_core::audit::{Actor, ActorKind, AuditEntry, AuditOutcome, Origin};
use keyward_core::authority::Invalidation;
use keyward_core::id::AdminTokenId;
use keyward_core::key::{KeyHint, KeySecret, Keyring, SecretKind};
use keyward_core::time::DAY_MS;
use keyward_core::{Clock, Error, Result};
use keyward_store::{AdminToken, Author, Chain, Change, Store, User};
use serde_json::json;
use zeroize::Zeroizing;

use crate::config::{Settings, private_file};
use crate::setup_link::{self, SetupLink};
use crate::{administrator, password};

/// Who is to administer the deployment.
pub(crate) struct NewAdministrator {
    /// Their address.
    pub(crate) email: String,
    /// Their name for people.
    pub(crate) name: String,
    /// Their password.
    pub(crate) password: Zeroizing<String>,
}

/// At start-up, while nobody administers the deployment: makes the administrator that the settings
/// name, or prints a link that makes one.
pub(crate) async fn administrator(
    settings: &Settings,
    store: &Store,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let mut tx = store.read_system("tell whether there is an administrator").await?;
    let there_is_one = tx.count_administrators().await? > 0;
    drop(tx);
    let author = system("keyward serve");
    match (&settings.bootstrap_admin_email, &settings.bootstrap_admin_password_file) {
        (Some(_), _) if there_is_one => {
            tracing::info!("bootstrap-admin-email is ignored: there is an administrator already");
        }
        _ if there_is_one => {}
        (Some(email), Some(file)) => {
            let password = private_file::read_line(file, "the administrator's password file")?;
            let (email, name) = (email.clone(), email.clone());
            let person = NewAdministrator { email, name, password };
            let user = create(store, author, person, clock).await.map_err(spoken)?;
            tracing::info!(user = %user.id, "made the administrator that the settings name");
        }
        (Some(_), None) => anyhow::bail!(
            "bootstrap-admin-email needs bootstrap-admin-password-file, a file with the password"
        ),
        (None, _) => {
            let link = setup_link::make(store, author).await.map_err(spoken)?;
            say_link(settings, &link);
        }
    }
    Ok(())
}

/// Prints the link for the person at this terminal. Not through the log: it is a secret.
fn say_link(settings: &Settings, link: &SetupLink) {
    use std::io::Write as _;
    let url = link.url(&control_url(settings));
    let _ = writeln!(
        std::io::stderr(),
        "No administrator yet. Open this link before {}:\n  {}\n\
         or run: keyward admin create --email YOU@EXAMPLE.COM --name YOU --password-stdin",
        link.expires_at,
        url.as_str(),
    );
}

/// How people reach the control listener; never a wildcard address, which is no link.
pub(crate) fn control_url(settings: &Settings) -> String {
    let mut listen = settings.control.listen;
    if listen.ip().is_unspecified() {
        listen.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let scheme = if settings.control.tls.is_on() { "https" } else { "http" };
    settings.control.public_url.clone().unwrap_or_else(|| format!("{scheme}://{listen}"))
}

/// Makes an administrator, or makes a known person one.
pub(crate) async fn create(
    store: &Store,
    author: Author,
    person: NewAdministrator,
    clock: &dyn Clock,
) -> Result<User> {
    bounds::email("email", &person.email)?;
    bounds::name("name", &person.name)?;
    let characters = person.password.chars().count();
    if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&characters) {
        let text =
            format!("password needs {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters");
        return Err(Error::validation("password", text));
    }
    // slow on purpose, so before the store is held
    let password_hash = password::hash(person.password, clock).await?;
    let mut tx = store.write_system("make an administrator", Chain::Operator, author).await?;
    let user =
        administrator::enter(&mut tx, clock, &person.email, &person.name, &password_hash).await?;
    let details = json!({ "after": { "email": user.email, "name": user.name } });
    let entry = entry(AuditAction::AdministratorCreated, &user.id, details);
    Ok(tx.finish(Change::new(user, entry)).await?.value)
}

/// Mints an operator's admin token with every scope.
pub(crate) async fn operator_token(
    store: &Store,
    keyring: &Keyring,
    author: Author,
    name: &str,
    clock: &dyn Clock,
) -> Result<KeySecret> {
    bounds::name("name", name)?;
    let minted = keyring.mint(SecretKind::Admin, clock);
    let created_by = author.actor.name.clone();
    let mut tx = store.write_system("make an admin token", Chain::Operator, author).await?;
    let days = i64::from(bounds::DEFAULT_ADMIN_TOKEN_DAYS);
    let token = AdminToken {
        id: AdminTokenId::from_bits(minted.id_bits),
        name: name.to_owned(),
        hint: KeyHint::new(minted.hint).ok_or_else(|| Error::internal("a hint with signs"))?,
        tenant: None,
        role: None,
        scopes: ManagementScope::ALL.iter().map(ToString::to_string).collect(),
        created_by,
        created_at: tx.at(),
        expires_at: Some(tx.at().plus_ms(days * DAY_MS)),
        revoked_at: None,
    };
    tx.insert_admin_token(&token, &minted.hash, minted.pepper_version).await?;
    let details = json!({ "after": { "name": token.name, "expiresAt": token.expires_at } });
    let entry = entry(AuditAction::AdminTokenCreated, &token.id, details);
    tx.finish(Change::new((), entry).introducing(Invalidation::AdminToken(token.id))).await?;
    Ok(minted.secret)
}

/// The author of what a command on the data directory does.
pub(crate) fn system(name: &str) -> Author {
    let (id, name) = ("-".to_owned(), name.to_owned());
    let actor = Actor { kind: ActorKind::System, id, name, role: None };
    Author { actor, origin: Origin::default() }
}

fn entry(
    action: AuditAction,
    target: &dyn std::fmt::Display,
    details: serde_json::Value,
) -> AuditEntry {
    AuditEntry {
        action: action.as_str(),
        target_kind: action.target_kind(),
        target_id: target.to_string(),
        outcome: AuditOutcome::Succeeded,
        details,
    }
}

/// An error for the operator, who may see what callers of the API may not.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub(crate) fn spoken(error: Error) -> anyhow::Error {
    match error.internal_context() {
        Some(context) => anyhow::anyhow!("{}: {context}", error.public()),
        None => anyhow::anyhow!("{}", error.public().to_owned()),
    }
}
