//! `keyward admin`: administrators of a deployment whose server is stopped.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Deployment;
use crate::bootstrap::{self, NewAdministrator};
use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Format, Listed, Output, or_nothing, print};
use crate::cli::remote::read_stdin;
use crate::config::ConfigArgs;
use crate::product::Product;
use crate::setup_link;

/// The name that the audit trail shows.
const ACTOR: &str = "keyward admin";
/// Users read in one page.
const PAGE: u32 = 200;

/// Administrators, on the data directory of a stopped server
#[derive(Debug, Args)]
pub(crate) struct AdminCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print a single-use link that makes the first administrator
    SetupLink {
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Make an administrator; the password comes from stdin
    Create(Create),
    /// Show the administrators
    List {
        /// How the result looks
        #[arg(long, value_enum)]
        output: Option<Format>,
        #[command(flatten)]
        config: ConfigArgs,
    },
}

#[derive(Debug, Args)]
struct Create {
    /// Their address
    #[arg(long)]
    email: String,
    /// Their name
    #[arg(long)]
    name: String,
    /// Read the password from stdin
    #[arg(long, required = true)]
    password_stdin: bool,
    /// Also make an operator's admin token; it alone goes to stdout
    #[arg(long)]
    with_token: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Administrator {
    id: String,
    email: Option<String>,
    name: String,
    created_at: String,
}

impl Listed for Administrator {
    const HEADINGS: &'static [&'static str] = &["ID", "EMAIL", "NAME", "CREATED"];

    fn cells(&self) -> Vec<String> {
        let email = or_nothing(self.email.as_ref());
        vec![self.id.clone(), email, self.name.clone(), self.created_at.clone()]
    }
}

impl AdminCommand {
    pub(crate) async fn run(self) -> Done {
        match self.action {
            Action::SetupLink { config } => {
                let deployment = Deployment::open(&config).await?;
                let link = setup_link::make(&deployment.store, bootstrap::system(ACTOR)).await?;
                let url = link.url(&bootstrap::control_url(&deployment.settings));
                let text = format!("works once, until {}; start the server first", link.expires_at);
                Output::new(None, false).say(&text);
                print(&format!("{}\n", url.as_str()))
            }
            Action::Create(create) => Box::pin(create.run()).await,
            Action::List { output, config } => {
                let administrators = administrators(&config).await?;
                Output::new(output, false).list(&administrators)
            }
        }
    }
}

async fn administrators(config: &ConfigArgs) -> Done<Vec<Administrator>> {
    let deployment = Deployment::open(config).await?;
    let mut tx = deployment.store.read_system("list the administrators").await?;
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = tx.users(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.id);
        let administrators = page.into_iter().filter(|user| user.administrator);
        found.extend(administrators.map(|user| Administrator {
            id: user.id.to_string(),
            email: user.email,
            name: user.name,
            created_at: user.created_at.to_string(),
        }));
    }
}

impl Create {
    async fn run(self) -> Done {
        let password = read_stdin("the password")?;
        let deployment = Deployment::open(&self.config).await?;
        // before anything is made: the token's form is the product's
        let format = if self.with_token { Some(token_format(&deployment)?) } else { None };
        let (store, clock) = (&deployment.store, &*deployment.clock);
        let person = NewAdministrator { email: self.email, name: self.name, password };
        let user = bootstrap::create(store, bootstrap::system(ACTOR), person, clock).await?;
        let output = Output::new(None, false);
        let address = or_nothing(user.email.as_ref());
        output.say(&format!("{} {address} administers this deployment", user.id));
        let Some(format) = format else { return Ok(()) };
        let keyring = deployment.secrets.keyring(format);
        let author = bootstrap::system(ACTOR);
        let secret = bootstrap::operator_token(store, &keyring, author, &user.name, clock).await?;
        output.say("an admin token with every scope; shown once");
        print(&format!("{}\n", secret.expose()))
    }
}

fn token_format(deployment: &Deployment) -> Done<keyward_core::key::TokenFormat> {
    let product = Product::load(&deployment.settings.profile).map_err(|error| {
        Failure::from(error).advising("name the folder with profile.toml: --profile")
    })?;
    Ok(product.profile.token_format())
}
