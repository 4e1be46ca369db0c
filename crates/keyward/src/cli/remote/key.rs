//! `keyward key`: making, listing and showing keys. What changes them is in `key_change`.

use clap::{Args, Subcommand};
use keyward_api::keys::{
    CreateKey, ExplainKey, Explanation, IdentifiedKey, IdentifyKey, Key, KeyWithSecret,
    ListKeysQuery,
};
use keyward_api::operation::{CREATE_KEY, EXPLAIN_KEY, GET_KEY, IDENTIFY_KEY, LIST_KEYS};
use keyward_api::secret::{PastedSecret, ShownOnce};
use keyward_core::Environment;
use keyward_core::id::TenantId;
use keyward_core::key::{KeyState, RateLimit};

use super::client::Call;
use super::key_change::Change;
use super::session::{Limit, RemoteArgs, Session, read_stdin};
use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Listed, or_nothing};

/// API keys of a tenant
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  keyward key create --tenant lagos-pay --name billing --owner billing-bot \\
      --env live --scopes reports:read,audit:read --expires 90d | gh secret set API_KEY
  keyward key rotate key_… --overlap 24h > new-token
  keyward key identify - < pasted-token
  keyward key explain key_… GET /v1/reports")]
pub(crate) struct KeyCommand {
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a key; the secret alone goes to stdout, once
    Create(Create),
    /// Show keys, newest first
    List(List),
    /// Show one key
    Show {
        /// Its id
        id: String,
    },
    /// Whose key is this? Reads the secret from stdin
    Identify {
        /// Always `-`: a secret does not belong in the history of a shell
        #[arg(value_parser = ["-"])]
        secret: String,
    },
    /// Would this call get through? Shows every check (exit code 0 or 3)
    Explain(Explain),
    #[command(flatten)]
    Change(Change),
}

#[derive(Debug, Args)]
struct Create {
    /// The service that will use it
    #[arg(long)]
    name: String,
    /// Where it will be valid
    #[arg(long, default_value = "live")]
    env: Environment,
    /// What it may do, with commas between
    #[arg(long, value_delimiter = ',', required = true)]
    scopes: Vec<String>,
    /// The member or service account whose role is its ceiling: id, address or name
    #[arg(long, value_name = "MEMBER")]
    owner: String,
    /// When it stops by itself: 90d, or an instant [default: the product's longest]
    #[arg(long, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// Networks it may be used from, with commas between
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    ip: Option<Vec<String>>,
    /// Its own rate limit, such as 100/1m
    #[arg(long, value_name = "N/WINDOW", value_parser = rate)]
    rate: Option<RateLimit>,
    /// Free text
    #[arg(long)]
    description: Option<String>,
}

#[derive(Debug, Args)]
struct List {
    /// Keys of this environment
    #[arg(long)]
    env: Option<Environment>,
    /// Keys in this state: active, expired or revoked
    #[arg(long, value_parser = parse_state)]
    state: Option<KeyState>,
    /// Keys of this member: id, address or name
    #[arg(long, value_name = "MEMBER")]
    owner: Option<String>,
    /// Keys that carry this scope
    #[arg(long)]
    scope: Option<String>,
    /// Keys not used in the last so many days
    #[arg(long, value_name = "DAYS")]
    unused: Option<u32>,
    /// Keys with this text in name, description, id or hint
    #[arg(long)]
    text: Option<String>,
    /// Keys that wait to be confirmed after a restore
    #[arg(long)]
    suspect: bool,
    /// Deleted keys too
    #[arg(long)]
    deleted: bool,
    #[command(flatten)]
    limit: Limit,
}

#[derive(Debug, Args)]
struct Explain {
    /// The id of the key
    id: String,
    /// The method of the call
    method: String,
    /// The path of the call
    path: String,
    /// The address it comes from
    #[arg(long)]
    ip: Option<String>,
    /// The value of the product's tenant header
    #[arg(long, value_name = "VALUE")]
    tenant_header: Option<String>,
    /// The `Origin` header a browser would send
    #[arg(long, value_name = "ORIGIN")]
    browser_origin: Option<String>,
    /// The environment served where the call arrives
    #[arg(long)]
    env: Option<Environment>,
    /// When the call arrives
    #[arg(long, value_name = "INSTANT")]
    at: Option<keyward_core::Timestamp>,
}

/// When a key ends: in so many days, or at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    Days(u32),
    At(keyward_core::Timestamp),
}

impl std::str::FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
        let instant = || text.parse().map(Self::At);
        days.map(Self::Days).map_or_else(instant, Ok).map_err(|_| {
            "not days such as 90d, not an instant such as 2027-02-20T23:59:00Z".to_owned()
        })
    }
}

/// Reads `100/1m`.
pub(super) fn rate(text: &str) -> Result<RateLimit, String> {
    let wrong = || "not a rate such as 100/1m".to_owned();
    let (limit, window) = text.split_once('/').ok_or_else(wrong)?;
    let window: crate::config::Millis = window.parse().map_err(|_| wrong())?;
    if window.0 == 0 || !window.0.is_multiple_of(1_000) {
        return Err("the window of a rate is whole seconds, such as 1m".to_owned());
    }
    let window_seconds = u32::try_from(window.0 / 1_000).map_err(|_| wrong())?;
    let limit = limit.parse().map_err(|_| wrong())?;
    Ok(RateLimit { limit, window_seconds, burst: None })
}

/// The word for a state.
pub(super) const fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Expired => "expired",
        KeyState::Revoked => "revoked",
    }
}

fn parse_state(text: &str) -> Result<KeyState, String> {
    let all = [KeyState::Active, KeyState::Expired, KeyState::Revoked];
    let found = all.into_iter().find(|known| state(*known) == text);
    found.ok_or_else(|| "use active, expired or revoked".to_owned())
}

/// The state, with what else there is to know about the key.
fn shown_state(key: &Key) -> String {
    let suspect = if key.suspect_since.is_some() { ", suspect" } else { "" };
    let exposed = if key.exposed_at.is_some() { ", exposed" } else { "" };
    format!("{}{suspect}{exposed}", state(key.state))
}

impl Listed for Key {
    const HEADINGS: &'static [&'static str] =
        &["ID", "NAME", "ENV", "STATE", "SCOPES", "LAST USED", "EXPIRES", "MINTED BY", "HINT"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.name.clone(),
            self.environment.to_string(),
            shown_state(self),
            self.scopes.join(","),
            or_nothing(self.last_used_at),
            or_nothing(self.expires_at),
            self.created_by.clone(),
            format!("•••••{}", self.hint),
        ]
    }
}

impl KeyCommand {
    pub(crate) async fn run(self) -> Done {
        let from_stdin = self.remote.reads_stdin();
        let session = self.remote.open()?;
        match self.action {
            Action::Create(create) => create.run(&session).await,
            Action::List(list) => list.run(&session).await,
            Action::Show { id } => {
                let call = session.on_tenant(&GET_KEY).await?.at("keyId", &id);
                session.output.record(&session.call::<Key>(call).await?)
            }
            Action::Identify { .. } if from_stdin => {
                let text = "stdin cannot hold both the admin token and the key";
                Err(Failure::usage(text, "name a file with --token-file"))
            }
            Action::Identify { .. } => identify(&session).await,
            Action::Explain(explain) => explain.run(&session).await,
            Action::Change(change) => change.run(&session).await,
        }
    }
}

/// Makes a key and prints its secret alone.
pub(super) async fn mint(session: &Session, tenant: TenantId, body: &CreateKey) -> Done {
    let call = Call::to(&CREATE_KEY).at("tenantId", &tenant).body(body)?;
    show(session, &session.call(call).await?)
}

/// Prints the secret of a key alone, and says on stderr whose it is.
pub(super) fn show(session: &Session, made: &KeyWithSecret) -> Done {
    let Key { id, name, environment, expires_at, .. } = &made.key;
    let end = or_nothing(*expires_at);
    session.output.say(&format!("{id} {name:?}, {environment}, until {end}; shown once"));
    session.output.secret(made, made.secret.as_ref().map(ShownOnce::expose))
}

impl Create {
    async fn run(self, session: &Session) -> Done {
        let tenant = session.tenant().await?;
        let owner = session.find_member(tenant, &self.owner).await?;
        let (expires_at, expires_in_days) = match self.expires {
            None => (None, None),
            Some(Expiry::Days(days)) => (None, Some(days)),
            Some(Expiry::At(instant)) => (Some(instant), None),
        };
        let body = CreateKey {
            name: self.name,
            description: self.description,
            environment: self.env,
            scopes: self.scopes,
            owner_id: Some(owner),
            expires_at,
            expires_in_days,
            ip_allowlist: self.ip,
            rate_limit: self.rate,
        };
        mint(session, tenant, &body).await
    }
}

impl List {
    async fn run(self, session: &Session) -> Done {
        let tenant = session.tenant().await?;
        let owner_id = match &self.owner {
            Some(name) => Some(session.find_member(tenant, name).await?),
            None => None,
        };
        let query = ListKeysQuery {
            environment: self.env,
            state: self.state,
            owner_id,
            scope: self.scope,
            unused_days: self.unused,
            text: self.text,
            suspect: self.suspect.then_some(true),
            include_deleted: self.deleted.then_some(true),
            ..ListKeysQuery::default()
        };
        let pages = || Call::to(&LIST_KEYS).at("tenantId", &tenant).query(&query);
        session.output.list::<Key>(&session.list(pages, self.limit).await?)
    }
}

async fn identify(session: &Session) -> Done {
    let secret = read_stdin("one key")?;
    let body = IdentifyKey { secret: PastedSecret::new(&secret) };
    let call = Call::to(&IDENTIFY_KEY).body(&body)?;
    session.output.record(&session.call::<IdentifiedKey>(call).await?)
}

impl Explain {
    async fn run(self, session: &Session) -> Done {
        let body = ExplainKey {
            method: self.method.to_uppercase(),
            path: self.path,
            ip: self.ip,
            tenant_header: self.tenant_header,
            browser_origin: self.browser_origin,
            environment: self.env,
            at: self.at,
        };
        let call = session.on_tenant(&EXPLAIN_KEY).await?.at("keyId", &self.id).body(&body)?;
        let explanation: Explanation = session.call(call).await?;
        session.output.explanation(&explanation)?;
        if explanation.allowed { Ok(()) } else { Err(Failure::no()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_rates_as_people_write_them() {
        assert_eq!("90d".parse(), Ok(Expiry::Days(90)));
        assert!(matches!("2027-02-20T23:59:00Z".parse(), Ok(Expiry::At(_))));
        assert!("90".parse::<Expiry>().is_err());
        let limit = rate("100/1m").unwrap();
        assert_eq!((limit.limit, limit.window_seconds), (100, 60));
        for bad in ["100", "100/m", "x/1m", "100/1500ms", "1/0s"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
