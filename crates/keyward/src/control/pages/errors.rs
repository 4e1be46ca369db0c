//! The error reference: a page per code, where every error's `docUrl` leads.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keyward_api::error::{ERRORS, ErrorInfo};

use super::page::{HTML, Page, escaped};

const FRAME: &str = include_str!("errors.html");

/// The page of every code, by code.
pub(super) fn pages(product: &str) -> BTreeMap<&'static str, Page> {
    ERRORS
        .iter()
        .map(|info| (info.code.as_str(), framed(product, info.code.as_str(), &section(info))))
        .collect()
}

/// The list of all codes.
pub(super) fn index(product: &str) -> Page {
    let mut rows = String::new();
    for info in ERRORS {
        let (code, title) = (info.code.as_str(), escaped(info.title));
        // writing to a String cannot fail
        let _ = write!(
            rows,
            "<tr><td><a href=\"/docs/errors/{code}\"><code>{code}</code></a></td>\
             <td>{}</td><td>{title}</td></tr>",
            info.status
        );
    }
    let head = "<tr><th scope=\"col\">Code</th><th scope=\"col\">HTTP</th>\
                <th scope=\"col\">Means</th></tr>";
    let table = format!("<table><thead>{head}</thead><tbody>{rows}</tbody></table>");
    framed(product, "Error codes", &table)
}

fn section(info: &ErrorInfo) -> String {
    let retry = if info.retryable {
        "The same request may succeed later."
    } else {
        "The same request will fail again until something is changed."
    };
    let causes = info
        .causes
        .iter()
        .fold(String::new(), |list, cause| list + "<li>" + &marked(cause) + "</li>");
    format!(
        "<p class=\"rule\">HTTP {}. {retry}</p><p>{}</p><h2>Common causes</h2><ul>{causes}</ul>\
         <h2>How to fix it</h2><p>{}</p><p><a href=\"/docs/errors\">All error codes</a></p>",
        info.status,
        marked(info.meaning),
        marked(info.fix),
    )
}

/// The text with what stands between backticks as code.
fn marked(text: &str) -> String {
    let mut html = String::new();
    for (position, part) in text.split('`').enumerate() {
        let part = escaped(part);
        // every second part stood between two backticks
        let (open, close) = if position % 2 == 0 { ("", "") } else { ("<code>", "</code>") };
        html.extend([open, &part, close]);
    }
    html
}

fn framed(product: &str, title: &str, content: &str) -> Page {
    let text = FRAME
        .replace("{{product}}", &escaped(product))
        .replace("{{title}}", title)
        .replace("{{content}}", content);
    Page::new(HTML, &text)
}

#[cfg(test)]
mod tests {
    use keyward_core::ErrorCode;

    use super::*;

    #[test]
    fn code_is_marked_and_escaped() {
        assert_eq!(marked("see `<a>` now"), "see <code>&lt;a&gt;</code> now");
    }

    #[test]
    fn every_code_has_its_page() {
        let pages = pages("Acme");
        for code in ErrorCode::ALL {
            assert!(pages.contains_key(code.as_str()), "{}", code.as_str());
        }
    }
}
