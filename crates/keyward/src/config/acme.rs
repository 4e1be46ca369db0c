//! The certificate that an authority issues to the deployment (RFC 8555), as `[acme]` sets it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::settings::Settings;
use super::units::Millis;

/// The most names of one certificate; what public authorities accept.
const MAX_DOMAINS: usize = 100;
/// The longest first pause that makes sense.
const MAX_RETRY_AFTER: Millis = Millis(7 * 24 * 60 * 60 * 1_000);
/// The most letters of a name and of one of its labels (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// What is ordered, and from whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AcmeSettings {
    /// The names of the certificate. One of the listeners with `tls.acme` is reached at port 443
    /// of each.
    pub(crate) domains: Vec<String>,
    /// Addresses of people, for the authority.
    pub(crate) contact: Vec<String>,
    /// Whether the operator agrees to the authority's terms of service.
    pub(crate) terms_agreed: bool,
    /// The authority's directory (RFC 8555 §7.1.1).
    pub(crate) directory_url: String,
    /// A file with the certificates (PEM) of the authorities that are believed about the
    /// directory instead of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Where account, key and certificate are kept; `acme` in the data directory when absent.
    pub(crate) state_dir: Option<PathBuf>,
    /// The account that the authority knows already (RFC 8555 §7.3.4).
    pub(crate) external_account_id: Option<String>,
    /// A file with the key of that account, in base64url.
    pub(crate) external_account_key_file: Option<PathBuf>,
    /// The pause after an order that failed; it doubles with each failure.
    pub(crate) retry_after: Millis,
}

impl Default for AcmeSettings {
    fn default() -> Self {
        Self {
            domains: Vec::new(),
            contact: Vec::new(),
            terms_agreed: false,
            directory_url: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            ca_file: None,
            state_dir: None,
            external_account_id: None,
            external_account_key_file: None,
            retry_after: Millis(300_000),
        }
    }
}

impl AcmeSettings {
    /// The names in lower case.
    pub(crate) fn names(&self) -> Vec<String> {
        self.domains.iter().map(|name| name.to_ascii_lowercase()).collect()
    }
}

impl Settings {
    /// Whether a listener shows the certificate of `[acme]`.
    pub(crate) fn uses_acme(&self) -> bool {
        let gateways = self.gateway.listener.iter().map(|it| &it.tls);
        gateways.chain([&self.control.tls, &self.internal.tls]).any(|tls| tls.acme)
    }

    /// Where what the authority gave is kept.
    pub(crate) fn acme_dir(&self) -> PathBuf {
        self.acme.state_dir.clone().unwrap_or_else(|| self.data_dir.0.join("acme"))
    }
}

/// What of `[acme]` cannot be ordered. Nothing when it is not used.
pub(crate) fn acme_problems(settings: &Settings) -> Vec<Problem> {
    let acme = &settings.acme;
    let mut problems = Vec::new();
    let mut refuse = |problem: String, fix: &str| problems.push(Problem::new(problem, fix));
    match (settings.uses_acme(), acme.domains.is_empty()) {
        (false, true) => return Vec::new(),
        (false, false) => refuse(
            "acme.domains is set, but no listener shows that certificate".to_owned(),
            "set tls.acme = true where it is to be shown, or leave acme.domains out",
        ),
        (true, true) => refuse(
            "a listener has tls.acme = true, but acme.domains names nothing".to_owned(),
            "name the hosts: acme.domains = [\"api.example.com\"] (--acme-domains)",
        ),
        (true, false) => {}
    }
    if acme.domains.len() > MAX_DOMAINS {
        refuse(format!("acme.domains has more than {MAX_DOMAINS} names"), "name fewer hosts");
    }
    for name in acme.domains.iter().filter(|name| !is_host(name)) {
        refuse(
            format!("acme.domains: {name:?} is no host whose certificate can be ordered"),
            "name a full host in ASCII, without a wildcard, a port or a final dot",
        );
    }
    for contact in acme.contact.iter().filter(|contact| !contact.contains('@')) {
        refuse(format!("acme.contact: {contact:?} is no address"), "write it as ops@example.com");
    }
    if !acme.terms_agreed {
        refuse(
            format!("the terms of service of {} are not agreed to", acme.directory_url),
            "read them, and set acme.terms-agreed = true (--acme-terms-agreed)",
        );
    }
    if !acme.directory_url.starts_with("https://") {
        refuse(format!("acme.directory-url: {}", acme.directory_url), "name an https:// address");
    }
    if acme.external_account_id.is_some() != acme.external_account_key_file.is_some() {
        refuse(
            "acme.external-account-id and acme.external-account-key-file go together".to_owned(),
            "set both as the authority gave them, or neither",
        );
    }
    if acme.retry_after.0 == 0 || acme.retry_after > MAX_RETRY_AFTER {
        let text = format!("acme.retry-after is {}", acme.retry_after);
        refuse(text, "leave it out, or write more than nothing and at most \"7d\"");
    }
    problems
}

/// Whether it is a host in the form that certificates carry (RFC 5280 §4.2.1.6). The challenge
/// cannot be answered for a wildcard (RFC 8737 §3).
fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let edges = !label.starts_with('-') && !label.ends_with('-');
        !label.is_empty() && label.len() <= MAX_LABEL && letters && edges
    };
    let last_is_number = name.rsplit('.').next().is_some_and(|it| it.parse::<u32>().is_ok());
    name.len() <= MAX_NAME && !last_is_number && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = Settings::default();
        settings.control.tls.acme = true;
        settings.acme.domains = vec!["keys.example.com".to_owned()];
        settings.acme.contact = vec!["ops@example.com".to_owned()];
        settings.acme.terms_agreed = true;
        change(&mut settings);
        settings
    }

    #[test]
    fn what_cannot_be_ordered_is_refused_with_the_way_out() {
        type Change = fn(&mut Settings);
        let table: [(Change, &str); 10] = [
            (|it| it.control.tls.acme = false, "no listener"),
            (|it| it.acme.domains.clear(), "names nothing"),
            (|it| it.acme.domains = vec!["a.example".to_owned(); 101], "more than 100"),
            (|it| it.acme.contact = vec!["ops".to_owned()], "no address"),
            (|it| it.acme.terms_agreed = false, "terms of service"),
            (|it| it.acme.directory_url = "http://ca.example".to_owned(), "directory-url"),
            (|it| it.acme.external_account_id = Some("kid".to_owned()), "go together"),
            (|it| it.acme.external_account_key_file = Some("key".into()), "go together"),
            (|it| it.acme.retry_after = Millis(0), "retry-after"),
            (|it| it.acme.retry_after = Millis(u64::MAX), "retry-after"),
        ];
        for (change, expected) in table {
            let problems = acme_problems(&settings(change));
            assert_eq!(problems.len(), 1, "{expected}: {problems:?}");
            assert!(problems[0].problem.contains(expected), "{expected}: {problems:?}");
        }
        assert_eq!(acme_problems(&settings(|_| {})), []);
        assert_eq!(acme_problems(&Settings::default()), []);
    }

    #[test]
    fn only_hosts_are_ordered() {
        for good in ["localhost", "api.example.com", "A-1.example", "xn--bcher-kva.example"] {
            assert!(is_host(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "*.example.com", "a..b", "a.", ".a", "-a.b", "10.0.0.1", "a:443", "ä.de"]
            .into_iter()
            .chain([long.as_str(), "a/../b", "::1"])
        {
            assert!(!is_host(bad), "{bad}");
        }
    }
}
