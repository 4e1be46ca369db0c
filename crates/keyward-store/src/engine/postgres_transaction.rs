//! One transaction on a lent connection, with a limit on every wait for the server.

use std::time::Duration;

use deadpool::managed::Object;
use futures_util::future::{join, join_all};
use futures_util::{FutureExt as _, TryStreamExt as _};
use tokio::time::error::Elapsed;

use super::postgres::{classify, silent};
use super::postgres_session::{Address, Ready, Session, SessionManager, Signer};
use super::postgres_value::read;
use super::row::RowBuilder;
use super::{Access, Lane, MAX_ROWS, Row, Sent, Statement, StoreError, StoreLimits, Value, defect};

pub(super) struct PostgresTransaction {
    /// Absent once the transaction has ended, or its connection was given up.
    session: Option<Object<SessionManager>>,
    /// The beginning, while it is not sent yet.
    unsent: Option<Beginning>,
    wire: Wire,
    address: Address,
    lane: Lane,
    access: Access,
    limits: StoreLimits,
}

/// What is under way on the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Nothing: the server waits for us.
    Quiet,
    /// A request whose answer nobody has read to its end.
    Asked,
    /// The commit. It is never cancelled: a server that waits for its standby would then give up
    /// the wait and keep the commit.
    Committing,
}

impl PostgresTransaction {
    pub(super) fn new(
        session: Object<SessionManager>,
        address: Address,
        lane: Lane,
        access: Access,
        limits: StoreLimits,
    ) -> Self {
        let session = Some(session);
        Self { session, unsent: None, wire: Wire::Quiet, address, lane, access, limits }
    }

    /// Begins it on the server and binds its context, or leaves that to its first statements.
    pub(super) async fn begin(
        mut self,
        signer: &Signer,
        context: &str,
    ) -> Result<Self, StoreError> {
        let (access, limits) = (self.access, self.limits);
        self.unsent =
            Some(Beginning { signer: signer.clone(), context: context.to_owned(), access, limits });
        if !self.session()?.begins_with_its_statements() {
            self.begun().await?;
        }
        Ok(self)
    }

    /// Sees to it that it has begun.
    async fn begun(&mut self) -> Result<(), StoreError> {
        let Some(beginning) = self.unsent.take() else {
            return Ok(());
        };
        self.wire = Wire::Asked;
        let limit = self.limits.begin;
        let session = self.session()?;
        let begun = async {
            session.prepare_context().await?;
            beginning.send(session).await
        };
        let begun = tokio::time::timeout(limit, begun).await;
        self.answered(begun, "BEGIN")?;
        self.wire = Wire::Quiet;
        Ok(())
    }

    fn session(&mut self) -> Result<&mut Session, StoreError> {
        let ended = || StoreError::Unavailable("the connection was given up".to_owned());
        self.session.as_deref_mut().ok_or_else(ended)
    }

    pub(super) async fn query(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        self.begun().await?;
        self.wire = Wire::Asked;
        let limit = self.limits.answer();
        let answer = tokio::time::timeout(limit, self.rows(statement, values)).await;
        let answer = self.answered(answer, statement.name());
        self.quiet_after(&answer);
        answer
    }

    async fn rows(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<Vec<Row>, StoreError> {
        let session = self.session()?;
        let ready = session.prepare(statement, values).await?;
        rows_of(session, ready, values).await
    }

    /// Sends statements without waiting for the answers of those before.
    pub(super) async fn flight(&mut self, sent: &[Sent]) -> Result<Vec<Vec<Row>>, StoreError> {
        self.wire = Wire::Asked;
        let limit = self.limits.answer();
        let answer = tokio::time::timeout(limit, self.landed(sent)).await;
        let answer = self.answered(answer, "a flight of statements");
        self.quiet_after(&answer);
        answer
    }

    /// Sends statements and the commit together; after a statement that failed the server takes
    /// everything back.
    pub(super) async fn finish(mut self, sent: &[Sent]) -> Result<(), StoreError> {
        self.wire = Wire::Committing;
        let limit = self.limits.answer() + self.limits.commit;
        let finished = async {
            let (session, ready, beginning) = self.ready(sent).await?;
            let flown = fly(session, ready, beginning, sent);
            let (flown, committed) = join(flown, session.client.batch_execute("COMMIT")).await;
            flown.and(committed.map_err(|error| classify("COMMIT", &error)))
        };
        let finished = tokio::time::timeout(limit, finished).await;
        self.answered(finished, "a flight with its COMMIT")?;
        self.session = None;
        Ok(())
    }

    async fn landed(&mut self, sent: &[Sent]) -> Result<Vec<Vec<Row>>, StoreError> {
        let (session, ready, beginning) = self.ready(sent).await?;
        fly(session, ready, beginning, sent).await
    }

    /// What sends statements, behind the beginning when that is still to be sent.
    async fn ready(&mut self, sent: &[Sent]) -> Result<Flight<'_>, StoreError> {
        let mut statements = sent.iter().map(|(statement, _)| *statement);
        let session = self.session()?;
        if !statements.all(|statement| session.has_prepared(statement)) {
            // names are looked up when a statement is prepared, and where is a part of the context
            self.begun().await?;
        }
        let session = self.session()?;
        let mut ready = Vec::with_capacity(sent.len());
        for (statement, values) in sent {
            ready.push(session.prepare(statement, values).await?);
        }
        let beginning = self.unsent.take();
        Ok((&*self.session()?, ready, beginning))
    }

    pub(super) async fn execute(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        self.begun().await?;
        self.wire = Wire::Asked;
        let limit = self.limits.answer();
        let answer = tokio::time::timeout(limit, self.changed(statement, values)).await;
        let answer = self.answered(answer, statement.name());
        self.quiet_after(&answer);
        answer
    }

    async fn changed(
        &mut self,
        statement: &'static Statement,
        values: &[Value],
    ) -> Result<u64, StoreError> {
        let failed = |error| classify(statement.name(), &error);
        let session = self.session()?;
        let ready = session.prepare(statement, values).await?;
        let mut found = std::pin::pin!(session.run(ready, values).await?);
        if found.try_next().await.map_err(failed)?.is_some() {
            return Err(defect(statement, "answers rows where none are read"));
        }
        Ok(found.rows_affected().unwrap_or_default())
    }

    pub(super) async fn commit(mut self) -> Result<(), StoreError> {
        self.session()?;
        if self.unsent.is_some() {
            return Ok(());
        }
        self.wire = Wire::Committing;
        let limit = self.limits.commit;
        let committed = tokio::time::timeout(limit, self.say("COMMIT")).await;
        match self.answered(committed, "COMMIT") {
            Ok(()) => {
                self.session = None;
                Ok(())
            }
            Err(StoreError::Unavailable(text)) if self.access != Access::Read => {
                Err(StoreError::CommitUnknown(text))
            }
            Err(other) => Err(other),
        }
    }

    pub(super) async fn rollback(mut self) -> Result<(), StoreError> {
        if self.unsent.is_some() {
            return Ok(());
        }
        self.wire = Wire::Asked;
        let limit = self.limits.commit;
        let rolled_back = tokio::time::timeout(limit, self.say("ROLLBACK")).await;
        self.answered(rolled_back, "ROLLBACK")?;
        self.session = None;
        Ok(())
    }

    async fn say(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let said = self.session()?.client.batch_execute(sql).await;
        said.map_err(|error| classify(sql, &error))
    }

    /// Passes an answer on; after silence the connection is given up.
    fn answered<T>(
        &mut self,
        answer: Result<Result<T, StoreError>, Elapsed>,
        statement: &'static str,
    ) -> Result<T, StoreError> {
        answer.unwrap_or_else(|_| {
            if let Some(session) = self.session.take() {
                give_up_with_idle(session);
            }
            Err(silent(statement))
        })
    }

    /// Notes whether the server has said its last word on a request, so that the connection is
    /// good for the next one. After the other errors rows may still be on the way, or nothing.
    fn quiet_after<T>(&mut self, answer: &Result<T, StoreError>) {
        use StoreError::{Corrupt, Internal, Unavailable};
        if !matches!(answer, Err(Unavailable(_) | Internal(_) | Corrupt { .. })) {
            self.wire = Wire::Quiet;
        }
    }
}

type Flight<'s> = (&'s Session, Vec<Ready>, Option<Beginning>);

async fn fly(
    session: &Session,
    ready: Vec<Ready>,
    beginning: Option<Beginning>,
    sent: &[Sent],
) -> Result<Vec<Vec<Row>>, StoreError> {
    let flying = ready.into_iter().zip(sent);
    let flying = flying.map(|(ready, (_, values))| rows_of(session, ready, values));
    let begun = async {
        match &beginning {
            Some(beginning) => beginning.send(session).await,
            None => Ok(()),
        }
    };
    // all of them are waited for: after one that failed the server refuses the others
    let (begun, landed) = join(begun, join_all(flying)).await;
    begun?;
    landed.into_iter().collect()
}

async fn rows_of(
    session: &Session,
    ready: Ready,
    values: &[Value],
) -> Result<Vec<Row>, StoreError> {
    let statement = ready.statement;
    let failed = |error| classify(statement.name(), &error);
    let mut found = std::pin::pin!(session.run(ready, values).await?);
    let (mut rows, mut builder) = (Vec::new(), RowBuilder::new(statement));
    while let Some(row) = found.try_next().await.map_err(failed)? {
        if rows.len() == MAX_ROWS {
            return Err(defect(statement, "answers too many rows; it needs a LIMIT"));
        }
        rows.push(read(statement, &row, &mut builder)?);
    }
    Ok(rows)
}

/// How a transaction begins.
struct Beginning {
    signer: Signer,
    context: String,
    access: Access,
    limits: StoreLimits,
}

impl Beginning {
    async fn send(&self, session: &Session) -> Result<(), StoreError> {
        session.begin(&self.signer, &self.context, self.access, &self.limits).await
    }
}

impl Drop for PostgresTransaction {
    fn drop(&mut self) {
        let Some(session) = self.session.take().filter(|_| self.unsent.is_none()) else {
            return;
        };
        match (self.wire, session.is_own()) {
            // One poll queues the message; whoever gets the connection next is queued behind it.
            (Wire::Quiet, true) => {
                let _ = session.client.batch_execute("ROLLBACK").now_or_never();
            }
            // A pooler lends the server to somebody else after the ROLLBACK: nobody is queued
            // behind it.
            (Wire::Quiet, false) => roll_back(session, self.limits.commit),
            // Its state is unknown: the connection is given up, and the server takes the work
            // back when it ends. Through a pooler a cancel request that comes late stops
            // somebody else's work; there the connection ends at once.
            (Wire::Asked, true) => {
                self.address.cancel(&session.client);
                self.give_up(session);
            }
            (Wire::Asked, false) => {
                session.cut();
                self.give_up(session);
            }
            (Wire::Committing, _) => self.give_up(session),
        }
    }
}

impl PostgresTransaction {
    /// What leases depend on is left unanswered only by callers whose own limit is over, which is
    /// shorter than ours.
    fn give_up(&self, session: Object<SessionManager>) {
        match self.lane {
            Lane::Common => drop(Object::take(session)),
            Lane::Reserved => give_up_with_idle(session),
        }
    }
}

/// Gives up a silent connection, and with it every idle one: what made one dead has most likely
/// killed the others, and each would cost its next user the same wait.
fn give_up_with_idle(session: Object<SessionManager>) {
    let pool = Object::pool(&session);
    drop(Object::take(session));
    if let Some(pool) = pool {
        pool.retain(|_, _| false);
    }
}

/// Takes the work back in the background; the connection is free when that is done.
fn roll_back(session: Object<SessionManager>, limit: Duration) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        drop(Object::take(session));
        return;
    };
    runtime.spawn(async move {
        let rolled_back = session.client.batch_execute("ROLLBACK");
        if !matches!(tokio::time::timeout(limit, rolled_back).await, Ok(Ok(()))) {
            drop(Object::take(session));
        }
    });
}
