//! Hints over LISTEN, on a connection of their own that is opened again whenever it breaks.

use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use keyward_core::Clock;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use super::hints::Hints;
use super::postgres::classify;
use super::postgres_session::{Address, Driver};
use super::{StoreError, StoreLimits};

/// The channel on which a writing transaction names its epoch, as decimal text.
const LISTEN: &str = "LISTEN keyward_changes";

/// How often a silent connection is asked whether it is still there: a half-open one says nothing.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// The pause before the first attempt to connect again; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Listens until the hints are dropped.
pub(super) fn start(address: Address, limits: StoreLimits, clock: Arc<dyn Clock>) -> Hints {
    let (sender, heard) = watch::channel(0);
    let ear = Ear { address, limits, heard: sender };
    Hints::of(heard, tokio::spawn(async move { ear.run(&*clock).await }))
}

struct Ear {
    address: Address,
    limits: StoreLimits,
    heard: watch::Sender<i64>,
}

impl Ear {
    async fn run(self, clock: &dyn Clock) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut listened = false;
            let error = self.listen(&mut listened).await;
            if listened || pause == FIRST_PAUSE {
                tracing::warn!(%error, "hints of changes are not heard; trying again");
            }
            pause = if listened { FIRST_PAUSE } else { pause };
            let _ = timeout(jittered(pause, clock), std::future::pending::<()>()).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Listens on one connection until that ends, and tells why it did.
    async fn listen(&self, listened: &mut bool) -> StoreError {
        let (client, mut driver) = match self.address.open().await {
            Ok(opened) => opened,
            Err(error) => return error,
        };
        tokio::select! {
            ended = self.hear(&mut driver) => ended,
            ended = self.keep(&client, listened) => ended,
        }
    }

    /// Carries the connection's messages and rings for each notice.
    async fn hear(&self, driver: &mut Driver) -> StoreError {
        std::future::poll_fn(|context| {
            loop {
                match ready!(driver.poll_message(context)) {
                    Some(Ok(AsyncMessage::Notification(notice))) => {
                        self.ring(notice.payload().parse().ok());
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(classify("LISTEN", &error)),
                    None => {
                        let text = "the server closed the connection".to_owned();
                        return Poll::Ready(StoreError::Unavailable(text));
                    }
                }
            }
        })
        .await
    }

    /// Asks for notices, and again and again whether the server is still there.
    async fn keep(&self, client: &Client, listened: &mut bool) -> StoreError {
        let limit = self.limits.wait;
        let silent = || StoreError::Unavailable("the server answered nothing in time".to_owned());
        match timeout(limit, client.batch_execute(LISTEN)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return classify("LISTEN", &error),
            Err(_) => return silent(),
        }
        *listened = true;
        // what was sent before is lost
        self.ring(None);
        loop {
            let _ = timeout(CHECK_EVERY, std::future::pending::<()>()).await;
            match timeout(limit, client.check_connection()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return classify("LISTEN", &error),
                Err(_) => return silent(),
            }
        }
    }

    fn ring(&self, epoch: Option<i64>) {
        self.heard.send_modify(|greatest| *greatest = epoch.unwrap_or(0).max(*greatest));
    }
}

/// Between half of the pause and all of it, so that nodes that lost the same server do not come
/// back as one.
fn jittered(pause: Duration, clock: &dyn Clock) -> Duration {
    let mut byte = [0];
    clock.fill_random(&mut byte);
    let [byte] = byte;
    pause / 2 + pause / 2 * u32::from(byte) / u32::from(u8::MAX)
}
