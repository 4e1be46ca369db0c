//! The few pages for browsers: what to do on an empty deployment, and the setup form.

mod errors;
mod page;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Path;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;

use super::context::ControlState;
use super::mount::Mounts;
use page::{HTML, Page, SCRIPT, STYLE};

/// Shown while nobody administers the deployment.
const EMPTY: &str = include_str!("empty.html");
/// Shown once somebody does.
const RUNNING: &str = include_str!("running.html");
/// The form that uses up a setup link.
const SETUP: &str = include_str!("setup.html");
/// What the form does.
const SETUP_SCRIPT: &str = include_str!("setup.js");
/// How all pages look.
const SETUP_STYLE: &str = include_str!("setup.css");

pub(super) fn mount(mounts: Mounts) -> Mounts {
    let state = mounts.state();
    let title = state.product.profile.title.clone();
    let setup = Page::new(HTML, &SETUP.replace("{{product}}", &page::escaped(&title)));
    let script = Page::new(SCRIPT, SETUP_SCRIPT);
    let style = Page::new(STYLE, SETUP_STYLE);
    let index = errors::index(&title);
    let errors = Arc::new(errors::pages(&title));
    let home = Arc::new(Home::new(state, &title));
    mounts
        .page("/", get(move || home.clone().answer()))
        .page("/setup", get(move || async move { setup.response(StatusCode::OK) }))
        .page("/setup.js", get(move || async move { script.response(StatusCode::OK) }))
        .page("/setup.css", get(move || async move { style.response(StatusCode::OK) }))
        .page("/docs/errors", get(move || async move { index.response(StatusCode::OK) }))
        .page(
            "/docs/errors/{code}",
            get(move |Path(code): Path<String>| {
                let answer = error_page(&errors, &code);
                async move { answer }
            }),
        )
}

/// The page of an error code.
fn error_page(pages: &BTreeMap<&'static str, Page>, code: &str) -> Response {
    match pages.get(code) {
        Some(page) => page.clone().response(StatusCode::OK),
        None => Page::new(page::TEXT, "There is no such error code. See /docs/errors.\n")
            .response(StatusCode::NOT_FOUND),
    }
}

/// The page at `/`.
struct Home {
    state: Arc<ControlState>,
    /// Once there was an administrator there always is one.
    administered: AtomicBool,
    empty: Page,
    running: Page,
}

impl Home {
    fn new(state: Arc<ControlState>, title: &str) -> Self {
        let of = |text: &str| Page::new(HTML, &text.replace("{{product}}", &page::escaped(title)));
        Self { state, administered: AtomicBool::new(false), empty: of(EMPTY), running: of(RUNNING) }
    }

    async fn answer(self: Arc<Self>) -> Response {
        if self.administered.load(Ordering::Relaxed) {
            return self.running.clone().response(StatusCode::OK);
        }
        match self.administrators().await {
            Ok(0) => self.empty.clone().response(StatusCode::OK),
            Ok(_) => {
                self.administered.store(true, Ordering::Relaxed);
                self.running.clone().response(StatusCode::OK)
            }
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(cause, "the home page could not be shown");
                let text = "Keyward cannot reach its store just now. Try again shortly.\n";
                Page::new(page::TEXT, text).response(StatusCode::SERVICE_UNAVAILABLE)
            }
        }
    }

    async fn administrators(&self) -> Result<i64, keyward_store::StoreError> {
        let mut tx = self.state.store.read_system("look for an administrator").await?;
        tx.count_administrators().await
    }
}
