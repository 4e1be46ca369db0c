//! The files below `deploy/`: what they pass to the binary is what the binary takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{PROFILE, keyward, write_private};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
/// What the refusal of an unknown variable says.
const UNKNOWN: &str = "there is no such setting";

fn read(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files of a deployment, at other paths than in a container or on a server.
struct Elsewhere {
    folder: TempDir,
}

impl Elsewhere {
    /// With this settings file and every secret there is.
    fn new(settings: &str) -> Self {
        let elsewhere = Self { folder: TempDir::new().unwrap() };
        for (name, text) in [
            ("assertion", "0123456789abcdef0123456789abcdef"),
            ("admin-password", "correct horse battery staple"),
            ("store-url", "postgres://keyward_control:x@127.0.0.1:1/keyward"),
            ("migrate-url", "postgres://keyward_owner:x@127.0.0.1:1/keyward"),
            ("secrets.toml", ""),
        ] {
            write_private(&elsewhere.path(name), text);
        }
        let settings = elsewhere.moved(settings);
        std::fs::write(elsewhere.path("keyward.toml"), settings).unwrap();
        std::os::unix::fs::symlink(PROFILE, elsewhere.path("profile")).unwrap();
        elsewhere
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A text in which the places of a deployment are those of this folder.
    fn moved(&self, text: &str) -> String {
        let here = self.folder.path().display().to_string();
        ["/run/secrets", "/etc/keyward", "%d"]
            .iter()
            .fold(text.to_owned(), |text, place| text.replace(place, &here))
    }

    /// Whether the binary takes these settings; `arguments` are those of `serve` or `migrate up`.
    async fn check(&self, arguments: &[String], variables: &BTreeMap<String, String>) {
        let settings = arguments.iter().skip_while(|argument| !argument.starts_with("--"));
        let settings: Vec<String> = settings.map(|argument| self.moved(argument)).collect();
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| (name.clone(), self.moved(value))).collect();
        let mut all = vec!["config", "check"];
        all.extend(settings.iter().map(String::as_str));
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let ended = keyward(&all, &variables).await;
        assert_eq!(ended.code, 0, "{all:?} {variables:?}: {}", ended.stderr);
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn compose_passes_what_the_binary_takes() {
    for kind in ["sqlite", "postgres"] {
        let folder = format!("deploy/compose/{kind}");
        let compose: Value =
            yaml_serde::from_str(&read(&format!("{folder}/compose.yaml"))).unwrap();
        let elsewhere = Elsewhere::new(&read(&format!("{folder}/keyward.toml")));
        let mut ours = 0;
        for (name, service) in compose["services"].as_object().unwrap() {
            let service = merged(service);
            for (setting, wanted) in [("read_only", "true"), ("cap_drop", r#"["ALL"]"#)] {
                assert_eq!(service[setting].to_string(), wanted, "{kind}/{name}: {setting}");
            }
            assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
            assert!(service["user"].as_str().unwrap().starts_with("${KEYWARD_USER:?"), "{name}");
            assert!(service["stop_grace_period"].is_string() || name == "migrate", "{name}");
            for secret in strings(&service["secrets"]) {
                assert_eq!(compose["secrets"][&secret]["file"], format!("./secrets/{secret}"));
            }
            if !service["image"].as_str().unwrap().starts_with("${KEYWARD_IMAGE:?") {
                continue;
            }
            ours += 1;
            let environment = service["environment"].as_object().unwrap().iter();
            let variables = environment.map(|(name, value)| (name.clone(), plain(value)));
            elsewhere.check(&strings(&service["command"]), &variables.collect()).await;
        }
        assert_eq!(ours, if kind == "sqlite" { 1 } else { 4 }, "{kind}");
    }
}

/// A mapping with the entries of the one that it names with `<<`, where it has none itself.
fn merged(mapping: &Value) -> Value {
    let own = mapping.as_object().unwrap();
    let below = own.get("<<").map(merged);
    let mut merged = below.and_then(|below| below.as_object().cloned()).unwrap_or_default();
    let entries = own.iter().filter(|(name, _)| *name != "<<");
    merged.extend(entries.map(|(name, value)| (name.clone(), value.clone())));
    Value::Object(merged)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[tokio::test]
async fn units_pass_what_the_binary_takes() {
    let settings = read("deploy/compose/sqlite/keyward.toml");
    let elsewhere = Elsewhere::new(&settings);
    std::fs::copy(elsewhere.path("keyward.toml"), elsewhere.path("%i.toml")).unwrap();
    for unit in ["keyward.service", "keyward@.service", "keyward-migrate.service"] {
        let text = read(&format!("deploy/systemd/{unit}"));
        let of = |name: &str| -> Vec<&str> {
            text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
        };
        let mut variables = BTreeMap::new();
        for entry in of("Environment") {
            let (name, value) = entry.split_once('=').unwrap();
            variables.insert(name.to_owned(), value.to_owned());
        }
        // what is read from %d was put there
        let credentials: Vec<&str> =
            of("LoadCredential").iter().map(|entry| entry.split_once(':').unwrap().0).collect();
        for value in variables.values().filter_map(|value| value.strip_prefix("%d/")) {
            assert!(credentials.contains(&value), "{unit}: {value}");
        }
        let command = of("ExecStart");
        let words = command[0].split(' ').skip(1).map(str::to_owned);
        elsewhere.check(&words.collect::<Vec<_>>(), &variables).await;
    }
}

#[test]
fn the_template_differs_from_the_unit_only_by_the_name_of_the_node() {
    let template = read("deploy/systemd/keyward@.service");
    let own = ["store-url", "STORE__URL_FILE"];
    let lines = template.lines().filter(|line| !own.iter().any(|word| line.contains(word)));
    let as_unit = lines.skip_while(|line| line.starts_with('#')).map(|line| {
        line.replace("/etc/keyward/%i.toml", "/etc/keyward/keyward.toml")
            .replace("/%i", "")
            .replace("-%i", "")
            .replace(" node %i", "")
    });
    let unit = read("deploy/systemd/keyward.service");
    let unit = unit.lines().skip_while(|line| line.starts_with('#'));
    assert_eq!(as_unit.collect::<Vec<_>>(), unit.collect::<Vec<_>>());
}

/// The names that begin with `KEYWARD_` in a text.
fn variables(text: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_name(c));
    words.filter(|word| word.starts_with("KEYWARD_")).map(str::to_owned).collect()
}

#[tokio::test]
async fn charts_and_images_name_variables_that_there_are() {
    // read by the build, by compose, or by `prepare`
    let others = ["KEYWARD_COMMIT", "KEYWARD_BUILD_DATE"];
    for file in [
        "deploy/container/Containerfile",
        "deploy/helm/keyward/templates/nodes.yaml",
        "deploy/helm/keyward/templates/migration.yaml",
        "deploy/systemd/postgres.conf",
    ] {
        let found = variables(&read(file));
        assert!(!found.is_empty(), "{file}");
        for name in found.iter().filter(|name| !others.contains(&name.as_str())) {
            let ended = keyward(&["config", "show"], &[(name.as_str(), "x")]).await;
            assert!(!ended.stderr.contains(UNKNOWN), "{file}: {}", ended.stderr);
        }
    }
    let ended = keyward(&["config", "show"], &[("KEYWARD_NOTHING", "x")]).await;
    assert!(ended.stderr.contains(UNKNOWN), "{}", ended.stderr);
}

#[test]
fn versions_are_those_of_the_workspace() {
    let version = env!("CARGO_PKG_VERSION");
    let chart: Value = yaml_serde::from_str(&read("deploy/helm/keyward/Chart.yaml")).unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
    assert!(read("deploy/compose/prepare").contains(&format!("keyward:{version}}}")));
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let argument = format!("\nARG RUST_VERSION={channel}\n");
    assert!(read("deploy/container/Containerfile").contains(&argument), "{channel}");
}

#[test]
fn the_defaults_of_the_chart_are_in_its_schema() {
    let values: Value = yaml_serde::from_str(&read("deploy/helm/keyward/values.yaml")).unwrap();
    let schema: Value =
        serde_json::from_str(&read("deploy/helm/keyward/values.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let problems = |values: &Value| -> Vec<String> {
        validator.iter_errors(values).map(|error| error.instance_path().to_string()).collect()
    };
    // these three must be given, and nothing else
    let mut missing = problems(&values);
    missing.sort();
    assert_eq!(missing, ["/gateway/trustedProxies", "/publicUrl", "/upstreams"]);
    let mut given = values.clone();
    given["publicUrl"] = "https://keys.example.com".into();
    given["gateway"]["trustedProxies"] = serde_json::json!(["10.0.0.0/8"]);
    given["upstreams"] =
        serde_json::json!([{ "environments": ["live"], "url": "http://reports:9000" }]);
    assert_eq!(problems(&given), [""; 0]);
    given["upstreams"][0]["url"] = serde_json::json!(["http://a:9000", "https://b"]);
    assert_eq!(problems(&given), [""; 0]);
    given["upstreams"][0]["url"] = "unix:/run/api.sock".into();
    assert_eq!(problems(&given), ["/upstreams/0/url"]);
    given["upstreams"][0]["url"] = "http://reports:9000".into();
    given["nodes"]["gateway"]["roles"] = serde_json::json!(["everything"]);
    assert_eq!(problems(&given), ["/nodes/gateway/roles/0"]);
    // every value has a place in the schema
    let place = |name: &String| !schema["properties"][name].is_null();
    assert!(values.as_object().unwrap().keys().all(place));
}
