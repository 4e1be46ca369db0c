use std::os::unix::fs::PermissionsExt as _;

use keyward_core::Timestamp;

use super::*;

/// Counts up; enough to tell secrets apart.
struct Counting(std::sync::atomic::AtomicU8);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(0)
    }

    fn monotonic_ns(&self) -> u64 {
        0
    }

    fn fill_random(&self, buffer: &mut [u8]) {
        let next = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        buffer.fill(next);
    }
}

fn clock() -> Counting {
    Counting(std::sync::atomic::AtomicU8::new(1))
}

fn deployment(folder: &Path) -> Settings {
    let mut settings = Settings::default();
    settings.data_dir.0 = folder.join("data");
    settings
}

fn refusal(result: Result<DeploymentSecrets, ConfigError>) -> String {
    match result {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_first_start_makes_a_private_file_and_the_next_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = deployment(folder.path());
    let first = DeploymentSecrets::load(&settings, &clock()).unwrap_or_else(|e| panic!("{e}"));
    let file = path(&settings);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let data = std::fs::metadata(&settings.data_dir.0).unwrap();
    assert_eq!(data.permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(&settings.data_dir.0).unwrap().count(), 1, "no draft is left");
    let second = DeploymentSecrets::load(&settings, &clock()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(*first.key_id_tag, [1; 32]);
    assert_eq!(*second.key_id_tag, [1; 32]);
    assert_eq!(*second.store_context, [2; 32]);
    assert_eq!(second.shared_assertion_secret(), &[3; 32]);
    assert_eq!(*second.assertion_seed, [4; 32]);
    assert_eq!((second.pepper.0, *second.pepper.1), (1, [5; 32]));
    assert!(second.earlier_peppers.is_empty());
    assert!(second.shared_assertion_key().is_ok() && second.public_assertion_key().is_ok());
    assert!(!create(&file, &clock()).unwrap(), "what is there stays");
}

#[test]
fn others_may_not_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = deployment(folder.path());
    create(&path(&settings), &clock()).unwrap();
    for mode in [0o640, 0o604, 0o660, 0o644] {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path(&settings), permissions).unwrap();
        let text = refusal(DeploymentSecrets::load(&settings, &clock()));
        assert!(text.contains("other users") && text.contains("chmod 600"), "{text}");
    }
}

#[test]
fn missing_secrets_are_not_made_anew_where_others_are_missed() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = deployment(folder.path());
    std::fs::create_dir(&settings.data_dir.0).unwrap();
    std::fs::write(settings.data_dir.0.join("keyward.db"), "x").unwrap();
    let text = refusal(DeploymentSecrets::load(&settings, &clock()));
    assert!(text.contains("restore the secrets file"), "{text}");
    std::fs::remove_file(settings.data_dir.0.join("keyward.db")).unwrap();
    settings.environment = DeploymentEnvironment::Production;
    let text = refusal(DeploymentSecrets::load(&settings, &clock()));
    assert!(text.contains("config init --secrets-file"), "{text}");
    assert!(!path(&settings).exists());
}

#[test]
fn faults_are_named_and_secrets_never_quoted() {
    let hex = "ab".repeat(32);
    let one = |name: &str| format!("{name} = \"{hex}\"\n");
    let four: String =
        ["key-id-tag", "store-context", "assertion", "assertion-seed"].map(one).concat();
    let zeros = "00".repeat(32);
    let table = [
        (format!("{four}[pepper]\ncurrent = 2\n1 = \"{hex}\""), "no pepper of this version"),
        (format!("{four}[pepper]\n1 = \"{hex}\""), "[pepper] current: missing"),
        (format!("{four}[pepper]\ncurrent = 1\none = \"{hex}\""), "[pepper] one"),
        (four.clone(), "[pepper]: this section is missing"),
        (format!("{four}extra = \"{hex}\""), "line 5: there is no such secret"),
        (format!("[pepper]\ncurrent = 1\n1 = \"{hex}\""), "key-id-tag: this secret is missing"),
        (format!("key-id-tag = \"{hex}a\""), "line 1: not 64 hexadecimal digits"),
        (format!("\nkey-id-tag = {hex}"), "line 2: this is not TOML"),
        (format!("key-id-tag = \"{zeros}\""), "all zero is no secret"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (position, (text, expected)) in table.into_iter().enumerate() {
        let file = folder.path().join(position.to_string());
        private_file::create(&file, &text).unwrap();
        let Err(problem) = DeploymentSecrets::read(&file) else { panic!("accepted: {expected}") };
        let shown = problem.to_string();
        assert!(shown.contains(expected), "{expected}: {shown}");
        assert!(!shown.contains("abab"), "{shown}");
    }
    let several = format!("{four}[pepper]\ncurrent = 7\n3 = \"{hex}\"\n7 = \"{hex}\"");
    let file = folder.path().join("several");
    private_file::create(&file, &several).unwrap();
    let Ok(secrets) = DeploymentSecrets::read(&file) else { panic!("refused") };
    let earlier: Vec<u16> = secrets.earlier_peppers.keys().copied().collect();
    assert_eq!((secrets.pepper.0, earlier), (7, vec![3]));
}

#[test]
fn a_line_of_secret_may_be_read_by_the_group_only() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    private_file::create(&file, "hunter2\n").unwrap();
    assert_eq!(*private_file::read_line(&file, "the token file").unwrap(), "hunter2");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(private_file::read_line(&file, "the token file").is_ok());
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let problem = private_file::read_line(&file, "the token file").unwrap_err();
    assert!(problem.problem.starts_with("the token file"), "{problem}");
}
