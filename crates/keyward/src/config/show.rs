//! The settings in force as a list, with what is secret in them masked.

use serde::Serialize;
use serde_json::Value as Json;

use super::layers::Loaded;

/// What stands for a password.
const MASK: &str = "•••••";

/// One setting in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// Its name in the file.
    pub(crate) name: String,
    /// Its value as text, empty when it has none.
    pub(crate) value: String,
    /// Where it comes from.
    pub(crate) origin: String,
    /// Its environment variable.
    pub(crate) variable: String,
    /// Its flag.
    pub(crate) flag: String,
}

/// Every setting in force, by name.
pub(crate) fn shown(loaded: &Loaded) -> Vec<Shown> {
    let tree = serde_json::to_value(&loaded.settings).unwrap_or_default();
    let one = |leaf: super::leaf::Leaf| {
        let pointer = format!("/{}", leaf.name.replace('.', "/"));
        let value = tree.pointer(&pointer).unwrap_or(&Json::Null);
        let origin = loaded.origins.get(&leaf.name);
        Shown {
            value: masked(&text_of(value)),
            origin: origin.map(ToString::to_string).unwrap_or_default(),
            variable: leaf.env(),
            flag: format!("--{}", leaf.flag()),
            name: leaf.name,
        }
    };
    super::leaf::leaves().into_iter().map(one).collect()
}

fn text_of(value: &Json) -> String {
    match value {
        Json::Null => String::new(),
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Hides the passwords in the address of a store.
fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let shown = match place.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((name, _)) => format!("{name}:{MASK}@{host}"),
            None => place.to_owned(),
        },
        None => place.to_owned(),
    };
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let parameters: Vec<String> = parameters.map(masked_parameter).collect();
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{shown}{mark}{}", parameters.join("&"))
}

fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.contains("password") => format!("{name}={MASK}"),
        _ => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked() {
        let table = [
            ("postgres://app:hunter2@db/keyward", "postgres://app:•••••@db/keyward"),
            ("postgres://app:p@ss/w:d@db/k", "postgres://app:•••••@db/k"),
            ("postgres://app@db/k?password=x&a=b", "postgres://app@db/k?password=•••••&a=b"),
            ("postgres://app@db/keyward", "postgres://app@db/keyward"),
            ("sqlite:keyward.db", "sqlite:keyward.db"),
        ];
        for (text, shown) in table {
            assert_eq!(masked(text), shown);
        }
    }
}
