//! A real browser that opens a page.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::server_process::find_program;

/// Chromium without a window, on one page. Dropping it ends it.
pub struct Browser {
    process: Child,
    _folder: TempDir,
}

impl Browser {
    /// Opens a page and lets its scripts run; nothing when Chromium is not installed: the test is
    /// then skipped aloud, or fails where `CI=true`.
    pub fn open(url: &str) -> Option<Self> {
        let program = find_program("chromium", "chromium")?;
        let folder = tempfile::Builder::new().prefix("keyward-browser-").tempdir();
        let folder = folder.expect("a temporary folder");
        let log = File::create(folder.path().join("log")).expect("the browser's log");
        let profile = format!("--user-data-dir={}", folder.path().display());
        let process = Command::new(program)
            .args(["--headless=new", "--disable-gpu", "--disable-dev-shm-usage"])
            // tests may run as root, and the page is the test's own
            .args(["--no-sandbox", "--no-first-run", "--remote-debugging-port=0", &profile, url])
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Some(Self { process: process.expect("a browser that starts"), _folder: folder })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
