//! What every command on a server shares: its flags, its client, its tenant, its confirmations.

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use keyward_api::members::Member;
use keyward_api::operation::{GET_TENANT, LIST_MEMBERS, LIST_TENANTS, Operation, WHOAMI};
use keyward_api::page::{MAX_PAGE_LIMIT, Page};
use keyward_api::tenants::Tenant;
use keyward_api::whoami::Whoami;
use keyward_core::id::{TenantId, UserId};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::client::{Call, Client, Transport};
use super::contexts::{Context, Contexts};
use crate::cli::exit::{Done, Exit, Failure};
use crate::cli::output::{Format, Output};
use crate::config::{Surroundings, private_file};

/// The server when none is named.
const DEFAULT_URL: &str = "http://127.0.0.1:8787";
/// The most entries looked through for a name.
const MAX_SEARCHED: usize = 10_000;
/// The largest secret read from stdin, in bytes.
const MAX_STDIN_BYTES: u64 = 4_096;

/// The server, the credential and the look of the result.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct RemoteArgs {
    /// The server [default: the context's, else the control listener on this machine]
    #[arg(long, global = true, env = "KEYWARD_URL", value_name = "URL")]
    url: Option<String>,
    /// A file with the admin token; `-` reads it from stdin
    #[arg(long, global = true, env = "KEYWARD_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The tenant, by id or short name [default: the token's]
    #[arg(long, global = true, env = "KEYWARD_TENANT", value_name = "TENANT")]
    tenant: Option<String>,
    /// A named server of `keyward context list`
    #[arg(long, global = true, env = "KEYWARD_CONTEXT", value_name = "NAME")]
    context: Option<String>,
    /// How the result looks
    #[arg(long, global = true, value_enum)]
    output: Option<Format>,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true)]
    quiet: bool,
    /// Never ask; fail instead
    #[arg(long, global = true)]
    no_input: bool,
    /// Seconds the server may take
    #[arg(
        long,
        global = true,
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=600)
    )]
    timeout: u64,
    /// Send the token without TLS, on a network you trust
    #[arg(long, global = true)]
    plain_http: bool,
}

/// Leave to do something that cannot be undone.
#[derive(Clone, Debug, Args)]
pub(super) struct Confirmation {
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
    /// Do it if this is the name of what it is done to
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
}

/// How many entries of a list are wanted.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Limit {
    /// The most entries to show
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
}

impl Limit {
    pub(super) const fn of(limit: u32) -> Self {
        Self { limit }
    }
}

/// A command's connection to its server.
pub(super) struct Session {
    client: Client,
    tenant: Option<String>,
    no_input: bool,
    pub(super) output: Output,
}

impl RemoteArgs {
    /// Finds server and credential.
    pub(super) fn open(&self) -> Done<Session> {
        let contexts = Contexts::read(&Surroundings::of_process())?;
        let context = contexts.get(self.context.as_deref())?.cloned().unwrap_or_default();
        let token_file = self.token_file.clone().or_else(|| context.token_file.clone());
        let token = token_file.as_deref().map(read_token).transpose()?;
        Ok(Session {
            client: self.client(&context, token)?,
            tenant: self.tenant.clone().or(context.tenant),
            no_input: self.no_input,
            output: Output::new(self.output, self.quiet),
        })
    }

    fn client(&self, context: &Context, token: Option<Zeroizing<String>>) -> Done<Client> {
        let named = Some(context.url.as_str()).filter(|url| !url.is_empty());
        let url = self.url.as_deref().or(named).unwrap_or(DEFAULT_URL);
        let transport = if self.plain_http { Transport::AnyHttp } else { Transport::Safe };
        Client::new(url, token, Duration::from_secs(self.timeout), transport)
    }

    /// A client without credential, for a listener at `default` unless a server is named.
    pub(super) fn anonymous(&self, default: &str) -> Done<(Client, Output)> {
        let context = Context { url: default.to_owned(), ..Context::default() };
        Ok((self.client(&context, None)?, Output::new(self.output, self.quiet)))
    }

    /// Whether the token comes from stdin, which then holds nothing else.
    pub(super) fn reads_stdin(&self) -> bool {
        self.token_file.as_deref() == Some(Path::new("-"))
    }
}

fn read_token(path: &Path) -> Done<Zeroizing<String>> {
    if path == Path::new("-") {
        return read_stdin("the admin token");
    }
    Ok(private_file::read_line(path, "the token file")?)
}

/// The one secret on stdin.
pub(crate) fn read_stdin(what: &str) -> Done<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    let read = std::io::stdin().lock().take(MAX_STDIN_BYTES + 1).read_to_string(&mut text);
    read.map_err(|e| Failure::new(Exit::Io, format!("stdin: {e}")))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() || text.len() as u64 > MAX_STDIN_BYTES {
        let text = format!("stdin must hold {what} and nothing else");
        return Err(Failure::usage(text, "pipe it in: … < FILE"));
    }
    Ok(Zeroizing::new(secret.to_owned()))
}

impl Session {
    /// Makes a call and reads its answer.
    pub(super) async fn call<A: DeserializeOwned>(&self, call: Call) -> Done<A> {
        self.client.call(call).await
    }

    /// A call on the tenant that is meant.
    pub(super) async fn on_tenant(&self, operation: &'static Operation) -> Done<Call> {
        Ok(Call::to(operation).at("tenantId", &self.tenant().await?))
    }

    /// The tenant that is meant.
    pub(super) async fn tenant(&self) -> Done<TenantId> {
        if let Some(name) = &self.tenant {
            return self.find_tenant(name).await;
        }
        let caller: Whoami = self.call(Call::to(&WHOAMI)).await?;
        caller.tenant_id.ok_or_else(|| {
            let text = "this token is for all tenants: name the one that is meant";
            Failure::usage(text, "--tenant ID or SHORT-NAME; see keyward tenant list")
        })
    }

    /// The tenant of this id or short name.
    pub(super) async fn find_tenant(&self, name: &str) -> Done<TenantId> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        let missing = || {
            let text = format!("there is no tenant {name}");
            Failure::new(Exit::NotFound, text).advising("keyward tenant list")
        };
        let caller: Whoami = self.call(Call::to(&WHOAMI)).await?;
        if let Some(id) = caller.tenant_id {
            let own: Tenant = self.call(Call::to(&GET_TENANT).at("tenantId", &id)).await?;
            return if own.slug == name { Ok(id) } else { Err(missing()) };
        }
        let pages = || Ok(Call::to(&LIST_TENANTS));
        let found = self.search(pages, |tenant: &Tenant| tenant.slug == name).await?;
        found.map(|tenant| tenant.id).ok_or_else(missing)
    }

    /// The member of this id, address or name.
    pub(super) async fn find_member(&self, tenant: TenantId, name: &str) -> Done<UserId> {
        if let Ok(id) = name.parse() {
            return Ok(id);
        }
        let pages = || Ok(Call::to(&LIST_MEMBERS).at("tenantId", &tenant));
        let is_meant = |member: &Member| {
            let by_address = member.email.as_deref().is_some_and(|e| e.eq_ignore_ascii_case(name));
            member.offboarded_at.is_none() && (by_address || member.name == name)
        };
        let found = self.search(pages, is_meant).await?;
        found.map(|member| member.user_id).ok_or_else(|| {
            let text = format!("nobody called {name} is a member of this tenant");
            Failure::new(Exit::NotFound, text).advising("keyward member list")
        })
    }

    /// The first entry of a list that is meant.
    async fn search<T: DeserializeOwned>(
        &self,
        call: impl Fn() -> Done<Call>,
        is_meant: impl Fn(&T) -> bool,
    ) -> Done<Option<T>> {
        let mut looked_at = 0;
        let mut cursor = None;
        loop {
            let page: Page<T> =
                self.call(call()?.query(&Paging::of(MAX_PAGE_LIMIT, cursor))?).await?;
            looked_at += page.data.len();
            if let Some(found) = page.data.into_iter().find(&is_meant) {
                return Ok(Some(found));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(None);
            }
            if looked_at >= MAX_SEARCHED {
                let text = format!("the name is not among the first {MAX_SEARCHED}");
                return Err(Failure::new(Exit::NotFound, text).advising("name it by its id"));
            }
        }
    }

    /// The entries of a list, over as many pages as it takes.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        call: impl Fn() -> Done<Call>,
        wanted: Limit,
    ) -> Done<Vec<T>> {
        let mut entries = Vec::new();
        let mut cursor = None;
        loop {
            let missing =
                wanted.limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
            let query = Paging::of(missing.min(MAX_PAGE_LIMIT), cursor);
            let page: Page<T> = self.call(call()?.query(&query)?).await?;
            entries.extend(page.data);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(entries);
            }
            if entries.len() >= wanted.limit as usize {
                self.output.say("there are more; --limit shows them");
                return Ok(entries);
            }
        }
    }

    /// Asks before something that cannot be undone.
    pub(super) fn confirm(&self, given: &Confirmation, act: &str, name: &str) -> Done {
        let refuse = || {
            let text = format!("this will {act}");
            Failure::usage(text, format!("add --yes, or --confirm={name}"))
        };
        match &given.confirm {
            _ if given.yes => return Ok(()),
            Some(confirmed) if confirmed == name => return Ok(()),
            Some(_) => return Err(refuse()),
            None => {}
        }
        if self.no_input || !std::io::stdin().is_terminal() {
            return Err(refuse());
        }
        self.output.say(&format!("This will {act}. Type {name} to go on:"));
        let mut answer = String::new();
        let read = std::io::stdin().lock().take(MAX_STDIN_BYTES).read_line(&mut answer);
        read.map_err(|e| Failure::new(Exit::Io, format!("stdin: {e}")))?;
        if answer.trim() == name {
            Ok(())
        } else {
            Err(Failure::new(Exit::Interrupted, "not done"))
        }
    }
}

/// The members of a query that name a page.
#[derive(Serialize)]
struct Paging {
    limit: u32,
    cursor: Option<String>,
}

impl Paging {
    const fn of(limit: u32, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }
}
