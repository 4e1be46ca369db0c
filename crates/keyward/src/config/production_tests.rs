use super::*;
use crate::config::private_file;

fn safe(folder: &std::path::Path) -> Settings {
    let file = folder.join("secrets.toml");
    private_file::create(&file, "").unwrap();
    let mut settings = Settings { secrets_file: Some(file), ..Settings::default() };
    settings.control.public_url = Some("https://keyward.example.com".to_owned());
    settings
}

const QUIET: Facts = Facts { demo_tenants: false };

fn only_problem(settings: &Settings, facts: Facts) -> String {
    let problems = production_problems(settings, facts);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].fix.is_empty());
    problems[0].problem.clone()
}

#[test]
fn safe_settings_have_no_problem() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(production_problems(&safe(folder.path()), QUIET), []);
}

#[test]
fn each_unsafe_setting_is_refused_with_its_fix() {
    type Spoil = fn(&mut Settings);
    let table: [(Spoil, &str); 7] = [
        (|s| s.control.listen = "0.0.0.0:8787".parse().unwrap(), "control listens"),
        (|s| s.gateway.listener[0].listen = "192.0.2.1:80".parse().unwrap(), "gateway listens"),
        (|s| s.control.public_url = Some("http://keyward.example.com".to_owned()), "not https"),
        (|s| s.control.public_url = None, "not set"),
        (|s| s.internal.listen = "0.0.0.0:8789".parse().unwrap(), "internal listens"),
        (|s| s.gateway.trusted_proxies = vec!["0.0.0.0/0".parse().unwrap()], "trusted-proxies"),
        (|s| s.internal.verify_from = vec!["::/0".parse().unwrap()], "verify-from"),
    ];
    for (spoil, expected) in table {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = safe(folder.path());
        spoil(&mut settings);
        let problem = only_problem(&settings, QUIET);
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn demo_tenants_and_open_secrets_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let settings = safe(folder.path());
    assert!(only_problem(&settings, Facts { demo_tenants: true }).contains("demo tenants"));
    let file = settings.secrets_file.clone().unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(only_problem(&settings, QUIET).contains("other users"));
    std::fs::remove_file(&file).unwrap();
    assert!(only_problem(&settings, QUIET).contains("secrets file"));
}

#[test]
fn f1_clear_text_beyond_this_machine_is_refused_everywhere() {
    let mut settings = Settings::default();
    assert_eq!(listening_problems(&settings), []);
    settings.gateway.listener[0].listen = "[::]:8788".parse().unwrap();
    settings.control.listen = "10.0.0.5:8787".parse().unwrap();
    let problems = listening_problems(&settings);
    assert_eq!(problems.len(), 2);
    assert!(problems[0].fix.contains("--control-behind-proxy"), "{}", problems[0].fix);
    settings.gateway.behind_proxy = true;
    settings.control.behind_proxy = true;
    let problems = listening_problems(&settings);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].fix.contains("gateway.trusted-proxies"), "{}", problems[0].fix);
    settings.gateway.listener[0].listen = "127.0.0.1:8788".parse().unwrap();
    assert_eq!(listening_problems(&settings), []);
    settings.gateway.listener[0].listen = "[::]:8788".parse().unwrap();
    settings.gateway.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(listening_problems(&settings), []);
}

#[test]
fn private_networks_are_private() {
    for address in ["127.0.0.1", "10.1.2.3", "192.168.1.1", "100.64.0.1", "::1", "fd00::1"] {
        assert!(is_private(address.parse().unwrap()), "{address}");
    }
    for address in ["0.0.0.0", "::", "8.8.8.8", "100.128.0.1", "::ffff:8.8.8.8", "2001:db8::1"] {
        assert!(!is_private(address.parse().unwrap()), "{address}");
    }
}
