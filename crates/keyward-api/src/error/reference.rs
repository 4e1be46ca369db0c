//! The error reference as Markdown, one section per code.

use std::fmt::Write;

use super::{ERRORS, ErrorInfo};

const PREAMBLE: &str = "# Error reference

<!-- Generated from the table in keyward-api by `cargo xtask errors`. Do not edit. -->

Every error of every route, on every plane, has the same body:

```json
{
  \"error\": {
    \"code\": \"forbidden\",
    \"message\": \"The API key lacks a scope that GET /v1/reports requires\",
    \"details\": {
      \"failed\": \"scope\",
      \"requiredScopes\": [[\"reports:read\"]],
      \"grantedScopes\": [\"audit:read\"],
      \"docUrl\": \"/docs/errors/forbidden\"
    },
    \"requestId\": \"req_0000000000000000000007\"
  }
}
```

`code` is for programs and never changes its meaning; `message` is for people and may. `requestId`
is also in the `x-request-id` header and finds the request in the logs. `details` holds `docUrl`
always, `failed` when a check of the gateway refused, and `field` when a value was at fault. 401
comes with `WWW-Authenticate`, 405 with `Allow`, 429 with `Retry-After`.

*Retry* says whether the same request may succeed later without a change.
";

/// The whole reference.
pub fn reference() -> String {
    let mut text = PREAMBLE.to_owned();
    text.push_str("\n| code | HTTP | retry | |\n|---|---|---|---|\n");
    for info in ERRORS {
        let code = info.code.as_str();
        // writing to a String cannot fail
        let _ = writeln!(
            text,
            "| [`{code}`](#{code}) | {} | {} | {} |",
            info.status,
            retry(info),
            info.title,
        );
    }
    for info in ERRORS {
        section(&mut text, info);
    }
    text
}

fn retry(info: &ErrorInfo) -> &'static str {
    if info.retryable { "yes" } else { "no" }
}

fn section(text: &mut String, info: &ErrorInfo) {
    let code = info.code.as_str();
    let _ = write!(
        text,
        "\n## {code}\n\n**{}** ({}, retry: {})\n\n{}\n\nCommon causes:\n\n",
        info.title,
        info.status,
        retry(info),
        info.meaning,
    );
    for cause in info.causes {
        let _ = writeln!(text, "- {cause}");
    }
    let _ = writeln!(text, "\nWhat to do: {}", info.fix);
}
