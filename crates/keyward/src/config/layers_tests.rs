use super::super::settings::DeploymentEnvironment;
use super::super::units::{Millis, Size};
use super::super::upstream::UpstreamProtocol;
use super::*;

/// A folder with a settings file, and what the process would be started with.
struct Start {
    folder: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    args: ConfigArgs,
}

impl Start {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            variables: BTreeMap::new(),
            args: ConfigArgs::default(),
        }
    }

    fn file(self, text: &str) -> Self {
        std::fs::write(self.folder.path().join("keyward.toml"), text).unwrap();
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn flag(mut self, name: &str, value: &str) -> Self {
        self.args.flags.entry(name.to_owned()).or_default().push(value.to_owned());
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        let surroundings = Surroundings {
            variables: self.variables.clone(),
            folder: self.folder.path().to_owned(),
        };
        load_in(&self.args, &surroundings)
    }

    fn refusal(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

const NAME: &str = "gateway.max-body";
const VARIABLE: &str = "KEYWARD_GATEWAY__MAX_BODY";

#[test]
fn flag_over_variable_over_file_over_default() {
    let mebibytes = |start: &Start| {
        let loaded = start.load().unwrap();
        (loaded.settings.gateway.max_body.0 >> 20, loaded.origins[NAME].to_string())
    };
    let start = Start::new();
    assert_eq!(mebibytes(&start), (64, "default".to_owned()));
    let start = start.file("# limits\n[gateway]\nmax-body = \"1MiB\"\n");
    let place = start.folder.path().join("keyward.toml");
    assert_eq!(mebibytes(&start), (1, format!("{}:3", place.display())));
    let start = start.variable(VARIABLE, "2MiB");
    assert_eq!(mebibytes(&start), (2, format!("env {VARIABLE}")));
    let start = start.flag(NAME, "3MiB");
    assert_eq!(mebibytes(&start), (3, "--gateway-max-body".to_owned()));
}

#[test]
fn every_setting_can_be_set_in_all_three_ways() {
    let default = serde_json::to_value(Settings::default()).unwrap();
    for leaf in leaves() {
        let value = default.pointer(&format!("/{}", leaf.name.replace('.', "/"))).unwrap();
        let text = match value {
            serde_json::Value::Null => "10.0.0.0".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(_) => "[]".to_owned(),
            other => other.to_string(),
        };
        let by_flag = Start::new().flag(&leaf.name, &text).load().unwrap();
        assert_eq!(by_flag.origins[&leaf.name], Origin::Flag(leaf.flag()));
        let by_variable = Start::new().variable(&leaf.env(), &text).load().unwrap();
        assert_eq!(by_variable.origins[&leaf.name], Origin::Variable(leaf.env()));
        let in_file = match leaf.read(&[text]).unwrap() {
            Value::String(text) => format!("{} = {:?}", leaf.name, text),
            other => format!("{} = {other}", leaf.name),
        };
        let by_file = Start::new().file(&in_file).load().unwrap();
        assert!(matches!(by_file.origins[&leaf.name], Origin::File(_, 1)), "{}", leaf.name);
    }
}

#[test]
fn what_is_unknown_is_an_error_with_a_suggestion() {
    let table = [
        (Start::new().file("[gateway]\nmax-bodi = \"1MiB\""), "toml:2", "gateway.max-body?"),
        (Start::new().file("[gatway]\nmax-body = \"1MiB\""), "toml:1: gatway", "fix: "),
        (Start::new().file("x = 1"), "there is no such setting", "keyward config show"),
        (Start::new().file("gateway = 1"), "is a section", "write it as a table"),
        (Start::new().variable("KEYWARD_GATEWAY_MAX_BODY", "1MiB"), "env KEYWARD_G", VARIABLE),
        (Start::new().variable("KEYWARD_SECRET_FILE", "x"), "no such", "KEYWARD_SECRETS_FILE?"),
        (Start::new().variable("KEYWARD_URI", "x"), "env KEYWARD_URI", "KEYWARD_URL?"),
        (
            Start::new().file("[[upstream]]\nenvironments = []\nulr = \"http://h\""),
            "toml:1: upstream: unknown field `ulr`",
            "did you mean url?",
        ),
        (Start::new().file("environment = \"prodcution\""), "toml:1: env", "mean production?"),
    ];
    for (start, problem, fix) in table {
        let refusal = start.refusal();
        assert!(refusal.contains(problem) && refusal.contains(fix), "{refusal}");
    }
}

#[test]
fn a_bad_value_names_its_origin() {
    let table = [
        (Start::new().file("\n[gateway]\nmax-body = \"1MB\""), "toml:3: gateway.max-body: not a s"),
        (Start::new().variable("KEYWARD_CONTROL__LISTEN", "x"), "KEYWARD_CONTROL__LISTEN: c"),
        (Start::new().flag("gateway.threads", "two"), "--gateway-threads: gateway.threads: not a"),
        (Start::new().flag("gateway.threads", "-1"), "--gateway-threads: gateway.threads: inv"),
        (Start::new().file("[gateway"), "keyward.toml:1: "),
    ];
    for (start, expected) in table {
        let refusal = start.refusal();
        assert!(refusal.contains(expected), "{expected}: {refusal}");
    }
    let several = Start::new().file("x = 1\ny = 2").variable("KEYWARD_Z", "");
    assert_eq!(several.load().unwrap_err().0.len(), 3, "all problems at once");
}

#[test]
fn the_file_is_looked_up_in_order() {
    let start = Start::new();
    assert_eq!(start.load().unwrap().file, None);
    let home = start.folder.path().join("home");
    let config = home.join("keyward");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("keyward.toml"), "data-dir = \"of-home\"").unwrap();
    let start = start.variable("XDG_CONFIG_HOME", home.to_str().unwrap());
    assert_eq!(start.load().unwrap().settings.data_dir.0, config.join("of-home"));
    let start = start.file("data-dir = \"of-here\"");
    let here = start.folder.path().join("of-here");
    assert_eq!(start.load().unwrap().settings.data_dir.0, here, "relative to the file");
    let other = start.folder.path().join("other.toml");
    std::fs::write(&other, "environment = \"production\"").unwrap();
    let mut start = start.variable("KEYWARD_CONFIG", other.to_str().unwrap());
    assert_eq!(start.load().unwrap().settings.environment, DeploymentEnvironment::Production);
    start.args.config = Some(start.folder.path().join("absent.toml"));
    assert!(start.refusal().contains("absent.toml"), "{}", start.refusal());
}

#[test]
fn paths_of_a_file_start_at_its_folder_and_others_do_not() {
    let text = "secrets-file = \"s\"\nprofile = \"/p\"\n[[upstream]]\nenvironments = []\n\
                url = \"http://h\"\nassertion-secret-file = \"a\"";
    let start = Start::new().file(text).flag("data-dir", "d");
    let settings = start.load().unwrap().settings;
    assert_eq!(settings.secrets_file, Some(start.folder.path().join("s")));
    assert_eq!(settings.profile, Path::new("/p"));
    assert_eq!(settings.data_dir.0, Path::new("d"));
    let secret = settings.upstream[0].assertion_secret_file.clone();
    assert_eq!(secret, Some(start.folder.path().join("a")));
    assert_eq!(settings.upstream[0].url.to_string(), "http://h");
    assert_eq!(settings.upstream[0].connect_timeout, Millis(3_000));
}

#[test]
fn an_upstream_has_one_address_or_several() {
    let text = "[[upstream]]\nenvironments = []\nurl = [\"http://a\", \"unix:/b\"]\n\
                protocol = \"h2c\"\nca-file = \"ca.pem\"\nhealth = { path = \"/up\" }";
    let start = Start::new().file(text);
    let upstream = start.load().unwrap().settings.upstream.remove(0);
    assert_eq!(upstream.url.0, ["http://a", "unix:/b"]);
    assert_eq!(upstream.protocol, UpstreamProtocol::Http2);
    assert_eq!(upstream.ca_file, Some(start.folder.path().join("ca.pem")));
    assert_eq!(upstream.health.path.as_deref(), Some("/up"));
    assert_eq!(upstream.health.interval, Millis(5_000));
    let wrong = Start::new().file("[[upstream]]\nenvironments = []\nurl = 1");
    assert!(wrong.refusal().contains("an address, or a list"), "{}", wrong.refusal());
}

#[test]
fn lists_come_from_flags_and_variables_too() {
    let start = Start::new()
        .variable("KEYWARD_INTERNAL__VERIFY_FROM", "10.0.0.0/8,::1/128")
        .flag("upstream", "{ environments = [\"live\"], url = \"http://a\" }")
        .flag("upstream", "{ environments = [\"test\"], url = \"http://b\" }")
        .flag("control.max-body", "1KiB");
    let settings = start.load().unwrap().settings;
    assert_eq!(settings.internal.verify_from.len(), 2);
    assert_eq!(settings.upstream.len(), 2);
    assert_eq!(settings.control.max_body, Size(1024));
}

#[test]
fn variables_of_others_and_of_commands_are_left_alone() {
    let start = Start::new()
        .variable("KEYWARD_URL", "http://h")
        .variable("KEYWARD_TOKEN_FILE", "t")
        .variable("KEYWARD_TEST_POSTGRES_URL", "p")
        .variable("PATH", "/bin");
    assert!(start.load().is_ok());
}
