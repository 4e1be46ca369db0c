//! The service manager that started this process: told when the node is ready, alive or stopping,
//! by the `sd_notify` protocol. Without one nobody is told.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// The longest time for which what the service manager shows of the node may be out of date.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// A service manager, if there is one that listens.
pub(crate) struct Supervisor {
    listener: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that started this process, as it says in the environment.
    pub(crate) fn of_this_process() -> Self {
        let asked = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let listener = asked("NOTIFY_SOCKET").and_then(|name| match reach(&name) {
            Ok(reached) => Some(reached),
            Err(error) => {
                let socket = name.display();
                tracing::warn!(%socket, %error, "the service manager cannot be told anything");
                None
            }
        });
        let watchdog = patience(asked("WATCHDOG_USEC"), asked("WATCHDOG_PID"), std::process::id());
        Self { listener, watchdog }
    }

    /// The node is being started; `doing` is shown to people.
    pub(crate) fn starting(&self, doing: &str) {
        self.tell(&format!("STATUS={doing}"));
    }

    /// The node serves.
    pub(crate) fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    /// The node was told to stop.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping: requests in flight may end");
    }

    /// Says again and again, for ever, that the process is alive, and whether it decides. A node
    /// that does not decide is alive: it waits for its database, and a restart would not bring
    /// that back.
    pub(crate) async fn keep_told(&self, decides: impl Fn() -> bool) {
        if self.listener.is_none() {
            return std::future::pending().await;
        }
        // half of what is allowed, so that one delay is no death
        let period = self.watchdog.map_or(STATUS_PERIOD, |patience| patience / 2);
        let mut period = interval(period.clamp(Duration::from_millis(1), STATUS_PERIOD));
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let alive = if self.watchdog.is_some() { "WATCHDOG=1\n" } else { "" };
        loop {
            period.tick().await;
            let status = if decides() { "serving" } else { "refusing: the database is away" };
            self.tell(&format!("{alive}STATUS={status}"));
        }
    }

    fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.listener else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::warn!(%error, "the service manager was not told {state:?}");
        }
    }
}

/// A socket, and the address of the service manager: a path, or an abstract name after `@`.
fn reach(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            let text = "NOTIFY_SOCKET is neither a path from / nor an abstract name after @";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    };
    let socket = UnixDatagram::unbound()?;
    // a service manager that does not listen must not hold up the node
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// How long this process may be silent; nothing when that is asked of nobody or of another one.
fn patience(micros: Option<OsString>, of: Option<OsString>, own_id: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let micros = micros.and_then(number).filter(|micros| *micros > 0)?;
    let other = of.is_some_and(|id| number(id) != Some(u64::from(own_id)));
    (!other).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let text = |text: &str| Some(OsString::from(text));
        let second = Some(Duration::from_secs(1));
        assert_eq!(patience(text("1000000"), None, 7), second);
        assert_eq!(patience(text("1000000"), text("7"), 7), second);
        for of in ["8", "", "x"] {
            assert_eq!(patience(text("1000000"), text(of), 7), None, "{of:?}");
        }
        for micros in ["0", "", "-1", "1s"] {
            assert_eq!(patience(text(micros), None, 7), None, "{micros:?}");
        }
        assert_eq!(patience(None, None, 7), None);
    }

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        let (_, path) = reach(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname().unwrap().to_str(), Some("/run/systemd/notify"));
        let (_, name) = reach(OsStr::new("@keyward")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"keyward"[..]));
        for other in ["vsock:2:1", "notify"] {
            assert!(reach(OsStr::new(other)).is_err(), "{other}");
        }
    }
}
