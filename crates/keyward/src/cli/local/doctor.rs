//! `keyward doctor`: looks at a deployment the way the server would, and changes nothing.

mod certificates;

use clap::Args;
use keyward_core::Clock as _;
use keyward_store::{RoleCheck, StoreConfig, StoreError, check_role, schema_status};
use serde::Serialize;

use crate::cli::exit::{Done, Failure};
use crate::cli::output::{Format, Listed, Output};
use crate::config::{
    self, ConfigArgs, DeploymentSecrets, Facts, Problem, Settings, acme_problems,
    listening_problems, production_problems,
};
use crate::node::{self, SystemClock};
use crate::product::Product;

/// Check settings, secrets, profile and database as the server would see them (exit code 0 or 3)
#[derive(Debug, Args)]
pub(crate) struct DoctorCommand {
    /// How the result looks
    #[arg(long, value_enum)]
    output: Option<Format>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    found: String,
    fix: Option<String>,
}

impl Listed for Finding {
    const HEADINGS: &'static [&'static str] = &["", "CHECK", "FOUND", "FIX"];

    fn cells(&self) -> Vec<String> {
        // what is good enough to start can still come with advice
        let mark = match (self.ok, &self.fix) {
            (true, None) => "ok",
            (true, Some(_)) => "?",
            (false, _) => "!!",
        };
        let fix = self.fix.clone().unwrap_or_default();
        vec![mark.to_owned(), self.check.to_owned(), self.found.clone(), fix]
    }
}

fn good(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, ok: true, found: found.into(), fix: None }
}

fn bad(check: &'static str, problem: Problem) -> Finding {
    Finding { check, ok: false, found: problem.problem, fix: Some(problem.fix) }
}

impl DoctorCommand {
    pub(crate) async fn run(self) -> Done {
        let loaded = config::load(&self.config)?;
        let settings = &loaded.settings;
        let file = loaded.file.as_ref().map(|path| path.display().to_string());
        let mut findings =
            vec![good("settings", file.unwrap_or_else(|| "no file; defaults".to_owned()))];
        findings.extend(safety(settings));
        findings.extend(certificates::findings(settings, SystemClock.now()));
        let product = Product::load(&settings.profile);
        findings.push(profile(&product));
        findings.extend(database(settings, product.as_ref().ok()).await);
        Output::new(self.output, false).list(&findings)?;
        if findings.iter().all(|finding| finding.ok) { Ok(()) } else { Err(Failure::no()) }
    }
}

fn safety(settings: &Settings) -> Vec<Finding> {
    let production = settings.environment == config::settings::DeploymentEnvironment::Production;
    let mut problems = if production {
        production_problems(settings, Facts { demo_tenants: false })
    } else {
        listening_problems(settings)
    };
    problems.extend(acme_problems(settings));
    if problems.is_empty() {
        return vec![good("safety", "nothing unsafe in the settings")];
    }
    problems.into_iter().map(|problem| bad("safety", problem)).collect()
}

fn profile(product: &anyhow::Result<Product>) -> Finding {
    match product {
        Ok(product) => {
            let routes = product.catalog.routes().len();
            let scopes = product.catalog.scopes().len();
            let warnings = product.catalog.warnings().len();
            let title = &product.profile.title;
            let text = format!("{title}: {routes} routes, {scopes} scopes, {warnings} warnings");
            good("profile", text)
        }
        Err(error) => {
            let fix = "name the folder with profile.toml: profile = \"…\" or --profile";
            bad("profile", Problem::new(format!("{error:#}"), fix))
        }
    }
}

async fn database(settings: &Settings, product: Option<&Product>) -> Vec<Finding> {
    let path = config::secrets::path(settings);
    if !path.exists() {
        let text = format!("{} is not there yet; the first start makes it", path.display());
        return vec![good("secrets", text)];
    }
    let secrets = match DeploymentSecrets::read(&path) {
        Ok(secrets) => secrets,
        Err(problem) => return vec![bad("secrets", problem)],
    };
    let mut findings = vec![good("secrets", path.display().to_string())];
    match node::store_config(settings, &secrets, &SystemClock) {
        Ok(mut config) => {
            config.roles.audit = product.map(node::lists_audit_events);
            findings.extend(schema(&config).await);
        }
        Err(error) => findings.push(lost(&error)),
    }
    findings
}

/// The schema, and then the database role that serves it, check by check. Nothing is migrated.
async fn schema(config: &StoreConfig) -> Vec<Finding> {
    let status = match schema_status(config).await {
        Ok(status) => status,
        Err(error) => return vec![lost(&error.into())],
    };
    if !status.pending.is_empty() {
        let text = format!("schema {}; pending: {}", status.version, status.pending.join(", "));
        return vec![good("database", text)];
    }
    let mut findings = vec![good("database", format!("schema {}", status.version))];
    match check_role(config).await {
        Ok(checks) => findings.extend(checks.into_iter().map(of_role)),
        Err(error) => findings.push(lost(&error.into())),
    }
    findings
}

fn of_role(check: RoleCheck) -> Finding {
    Finding { check: check.name, ok: check.ok, found: check.found, fix: check.fix }
}

fn lost(error: &anyhow::Error) -> Finding {
    let newer = matches!(error.downcast_ref::<StoreError>(), Some(StoreError::NewerSchema { .. }));
    let fix = if newer { "start the newer binary" } else { "check the store settings" };
    bad("database", Problem::new(format!("{error:#}"), fix))
}
