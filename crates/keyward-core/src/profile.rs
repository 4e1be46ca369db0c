//! The profile: what one product is called and allows. Data, read from `profile.toml`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::key::TokenFormat;
use crate::scope::is_segment;

/// The most roles in a profile.
pub const MAX_ROLES: usize = 64;
/// The most product areas in a profile.
pub const MAX_AREAS: usize = 64;
/// The most bytes in a token prefix.
pub const MAX_PREFIX_BYTES: usize = 32;
/// The most bytes in an environment word.
pub const MAX_WORD_BYTES: usize = 16;

/// A product, as `profile.toml` describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Short name, `[a-z][a-z0-9_-]*`.
    pub name: String,
    /// The product's name for people.
    pub title: String,
    /// Where a person can reach the product's team.
    pub contact_url: Option<String>,
    /// The path under which Keyward's built-in public operations live, such as `/v1`.
    pub base_path: String,
    /// The product's OpenAPI document, relative to the profile.
    pub openapi: String,
    /// The event catalogue, relative to the profile.
    pub events: Option<String>,
    /// Seeds of the sandbox, relative to the profile.
    pub seeds: Option<String>,
    /// What a tenant is called, and how a request names it.
    #[serde(default)]
    pub tenant: TenantNaming,
    /// Tokens and carriers.
    pub keys: KeyPolicy,
    /// The scopes of the product.
    pub scopes: BTreeMap<String, ScopeEntry>,
    /// The product areas; those not listed get the title of their name.
    #[serde(default)]
    pub areas: BTreeMap<String, AreaEntry>,
    /// The roles of users and service accounts.
    pub roles: BTreeMap<String, RoleEntry>,
    /// What the sandbox serves.
    #[serde(default)]
    pub sandbox: SandboxPolicy,
    /// What `keyward dev` seeds.
    #[serde(default)]
    pub demo: Demo,
    /// How sure a node must be of what it decides with.
    #[serde(default)]
    pub authority: AuthorityPolicy,
}

/// How sure a node must be of what it decides with. A route may say otherwise with
/// `x-keyward-authority`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorityPolicy {
    /// Which routes ask the authority each time.
    pub mode: AuthorityMode,
}

/// Which routes ask the authority each time instead of deciding from memory under a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorityMode {
    /// None. A lease assumes that the clocks of machines run at nearly the same rate.
    #[default]
    Lease,
    /// Those whose method may change something.
    StrictWrites,
    /// All.
    Strict,
}

/// What a tenant is called, and how a request names it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantNaming {
    /// The word in the dashboard.
    pub label: String,
    /// A header that every request must carry and that must name the key's tenant.
    pub header: Option<String>,
}

impl Default for TenantNaming {
    fn default() -> Self {
        Self { label: "Tenant".to_owned(), header: None }
    }
}

/// Where a request may carry its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// `Authorization: Bearer …`
    Bearer,
    /// `Authorization: ApiKey …`
    ApiKeyScheme,
    /// `x-api-key: …`
    XApiKey,
}

/// Which half of a scope names the product area.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeOrder {
    /// `reports:read`
    #[default]
    ResourceAction,
    /// `read:universe`
    ActionResource,
}

/// Tokens and carriers of the product.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPolicy {
    /// What every token begins with.
    pub prefix: String,
    /// The word of each environment in a token. An environment without a word is not offered.
    pub environments: BTreeMap<Environment, String>,
    /// Where a request may carry its key.
    pub carriers: Vec<Carrier>,
    /// Which half of a scope names the product area.
    #[serde(default)]
    pub scope_order: ScopeOrder,
    /// The scopes of a demo key.
    #[serde(default)]
    pub demo_scopes: Vec<String>,
    /// The longest life of a key in days.
    pub max_lifetime_days: Option<u32>,
    /// Whether a write scope counts as the read scope of the same area.
    #[serde(default)]
    pub write_implies_read: bool,
}

/// A scope of the product.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopeEntry {
    /// What it lets a key do.
    pub description: String,
    /// The permission level as the product words it.
    pub level: Option<String>,
    /// The product area, when it is not the resource half of the name.
    pub area: Option<String>,
}

/// A product area.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AreaEntry {
    /// Its name for people.
    pub title: String,
}

/// A role: the ceiling of whoever holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleEntry {
    /// Its name for people.
    pub title: String,
    /// The product areas it may use; `*` means all.
    pub areas: Vec<String>,
    /// The scopes of Keyward's own API it may use; `*` means all.
    #[serde(default)]
    pub operations: Vec<String>,
}

/// What the sandbox serves.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxPolicy {
    /// Environments whose keys go to the sandbox also when a real upstream exists.
    #[serde(default)]
    pub environments: Vec<Environment>,
}

/// What `keyward dev` seeds.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demo {
    /// The tenants, the first of which gets the demo keys.
    #[serde(default)]
    pub tenants: Vec<DemoTenant>,
}

/// A demo tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoTenant {
    /// Its short name, unique in the deployment.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// Its members; the first one owns the demo keys.
    #[serde(default)]
    pub members: Vec<DemoMember>,
}

/// A member of a demo tenant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoMember {
    /// Person or service account.
    #[serde(default)]
    pub kind: MemberKind,
    /// The address of a person.
    pub email: Option<String>,
    /// The name for people.
    pub name: String,
    /// A role of the profile.
    pub role: String,
}

/// Person or service account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberKind {
    /// Somebody who can sign in.
    #[default]
    Person,
    /// An owner of keys without sign-in.
    Service,
}

impl Profile {
    /// Checks what the types cannot say. The message names the member to fix.
    pub fn validate(&self) -> Result<()> {
        let refuse = |member: &str, text: String| {
            Err(Error::validation(member, format!("profile: {member}: {text}")))
        };
        if !is_segment(&self.name) {
            return refuse("name", "use lower-case letters, digits, '-' and '_'".to_owned());
        }
        if !self.base_path.starts_with('/') || self.base_path.ends_with('/') {
            return refuse("base_path", "begin with '/' and do not end with one".to_owned());
        }
        self.keys.validate()?;
        if self.roles.is_empty() || self.roles.len() > MAX_ROLES {
            return refuse("roles", format!("1 to {MAX_ROLES} roles"));
        }
        if let Some(role) = self.roles.keys().find(|role| !is_segment(role)) {
            return refuse("roles", format!("{role:?} is not a lower-case word"));
        }
        for member in self.demo.tenants.iter().flat_map(|tenant| &tenant.members) {
            if !self.roles.contains_key(&member.role) {
                let text = format!("{} has the unknown role {:?}", member.name, member.role);
                return refuse("demo.tenants.members", text);
            }
        }
        Ok(())
    }

    /// The token format of the product.
    pub fn token_format(&self) -> TokenFormat {
        TokenFormat::new(&self.keys.prefix, |environment| {
            let word = self.keys.environments.get(&environment);
            word.map_or_else(|| environment.as_str().to_owned(), Clone::clone)
        })
    }
}

impl KeyPolicy {
    fn validate(&self) -> Result<()> {
        let refuse = |member: &str, text: String| {
            Err(Error::validation(member, format!("profile: keys.{member}: {text}")))
        };
        if !is_word(&self.prefix, MAX_PREFIX_BYTES) {
            return refuse("prefix", "use lower-case letters, digits and single '_'".to_owned());
        }
        if self.environments.is_empty() {
            return refuse("environments", "name at least one environment".to_owned());
        }
        let mut words: Vec<String> = self.environments.values().cloned().collect();
        // with an underscore, one word could begin like another and take over its tokens
        let single = |word: &str| is_word(word, MAX_WORD_BYTES) && !word.contains('_');
        if let Some(word) = words.iter().find(|word| !single(word)) {
            let text = format!("{word:?} is not one word of lower-case letters and digits");
            return refuse("environments", text);
        }
        // the words of environments that are not offered stand in the format too
        let unnamed = Environment::ALL.into_iter().filter(|e| !self.environments.contains_key(e));
        words.extend(unnamed.map(|environment| environment.as_str().to_owned()));
        words.push("adm".to_owned());
        words.sort_unstable();
        if words.windows(2).any(|pair| pair.first() == pair.last()) {
            return refuse("environments", "each word stands once, and 'adm' is taken".to_owned());
        }
        if self.carriers.is_empty() {
            return refuse("carriers", "name at least one carrier".to_owned());
        }
        Ok(())
    }
}

fn is_word(text: &str, most: usize) -> bool {
    text.len() <= most
        && is_segment(text)
        && !text.contains('-')
        && !text.contains("__")
        && !text.ends_with('_')
}
