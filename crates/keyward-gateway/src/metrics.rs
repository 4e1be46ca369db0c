//! Counters of the data plane. Labels are route templates and codes: never a key, never a tenant.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;

use keyward_core::catalog::Catalog;
use keyward_core::decision::Step;
use keyward_core::error::ErrorCode;

use crate::exposures::Exposures;
use crate::proxy::{Loss, Upstreams};
use crate::record::Outcome;
use crate::server::Overload;

/// Upper ends of the buckets of the duration histogram, in milliseconds.
const BUCKETS_MS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 500, 2_500, 10_000];
/// The code of a request that was forwarded or answered.
const OK: &str = "ok";
/// The code of a request whose caller left before the answer; it had passed all checks.
pub(crate) const CLIENT_GONE: &str = "client_gone";
/// The route of a request that matched none.
const NO_ROUTE: &str = "-";

type Labels = [(&'static str, String); 3];
/// The labels of an exemplar, of which there are none.
pub(crate) type NoLabels = [(&'static str, String); 0];

/// Where a request is counted.
pub(crate) struct Counted {
    pub(crate) route: Option<usize>,
    pub(crate) code: Option<ErrorCode>,
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) duration_ns: u64,
}

/// Why a connection was not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The handshake was not over in time.
    TooSlow,
    /// The caller left.
    Gone,
    /// The two sides have no version, cipher or protocol in common.
    Incompatible,
    /// The caller did not accept this side, or did not speak TLS.
    Refused,
}

impl HandshakeFailure {
    const ALL: [Self; 4] = [Self::TooSlow, Self::Gone, Self::Incompatible, Self::Refused];

    /// Why a handshake broke off.
    pub(crate) fn of(error: &std::io::Error) -> Self {
        let tls = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
        match tls {
            None => Self::Gone,
            Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
                Self::Incompatible
            }
            Some(_) => Self::Refused,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::TooSlow => "too_slow",
            Self::Gone => "gone",
            Self::Incompatible => "incompatible",
            Self::Refused => "refused",
        }
    }
}

/// The metrics of one data plane, for a `prometheus_client` registry.
#[derive(Debug)]
pub struct Metrics {
    catalog: Arc<Catalog>,
    upstreams: Arc<Upstreams>,
    /// One row for each route and one for none; one column for each code, one for success, and
    /// one for callers that left.
    requests: Box<[AtomicU64]>,
    /// Streams that were cut: one row for each route; one column for each step of a decision, and
    /// one for a node that was not sure for too long.
    cuts: Box<[AtomicU64]>,
    /// WebSockets that are open.
    pub(crate) tunnels: AtomicU64,
    /// Bytes that passed through those that are closed: from callers, and to them.
    tunnel_bytes: [AtomicU64; 2],
    handshakes: [AtomicU64; HandshakeFailure::ALL.len()],
    floods: AtomicU64,
    refused_streams: [AtomicU64; Overload::ALL.len()],
    exposures: Arc<Exposures>,
    statuses: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS_MS.len() + 1],
    duration_ns: AtomicU64,
}

const OK_COLUMN: usize = ErrorCode::ALL.len();
const CLIENT_GONE_COLUMN: usize = OK_COLUMN + 1;
const COLUMNS: usize = CLIENT_GONE_COLUMN + 1;
const UNSURE_COLUMN: usize = Step::ALL.len();
const CUT_COLUMNS: usize = UNSURE_COLUMN + 1;

impl Metrics {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        upstreams: Arc<Upstreams>,
        exposures: Arc<Exposures>,
    ) -> Self {
        let routes = catalog.routes().len();
        let zeros = |cells: usize| (0..cells).map(|_| AtomicU64::new(0)).collect();
        Self {
            catalog,
            upstreams,
            requests: zeros((routes + 1) * COLUMNS),
            cuts: zeros(routes * CUT_COLUMNS),
            tunnels: AtomicU64::new(0),
            tunnel_bytes: Default::default(),
            handshakes: Default::default(),
            floods: AtomicU64::new(0),
            refused_streams: Default::default(),
            exposures,
            statuses: Default::default(),
            buckets: Default::default(),
            duration_ns: AtomicU64::new(0),
        }
    }

    pub(crate) fn count(&self, one: &Counted) {
        let row = one.route.unwrap_or(self.catalog.routes().len());
        let column = match (one.outcome, one.code) {
            (Outcome::ClientGone, _) => CLIENT_GONE_COLUMN,
            (Outcome::Answered, None) => OK_COLUMN,
            (Outcome::Answered, Some(code)) => code as usize,
        };
        add(self.requests.get(row * COLUMNS + column), 1);
        if one.outcome == Outcome::Answered {
            add(self.statuses.get(usize::from(one.status / 100).wrapping_sub(1)), 1);
        }
        let millis = one.duration_ns / 1_000_000;
        let bucket = BUCKETS_MS.iter().position(|end| millis < *end);
        add(self.buckets.get(bucket.unwrap_or(BUCKETS_MS.len())), 1);
        add(Some(&self.duration_ns), one.duration_ns);
    }

    /// Counts a stream of a route that was cut.
    pub(crate) fn count_cut(&self, route: usize, loss: Loss) {
        let column = match loss {
            Loss::Denied(denial) => denial.step as usize,
            Loss::Unsure => UNSURE_COLUMN,
        };
        add(self.cuts.get(route * CUT_COLUMNS + column), 1);
    }

    /// Counts what passed through a WebSocket.
    pub(crate) fn count_tunnel(&self, received: u64, sent: u64) {
        for (cell, bytes) in self.tunnel_bytes.iter().zip([received, sent]) {
            add(Some(cell), bytes);
        }
    }

    fn encode_tunnels(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let open = self.tunnels.load(Ordering::Relaxed);
        encoder
            .encode_descriptor(
                "keyward_gateway_websockets",
                "WebSockets that are open",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&open)?;
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_websocket_bytes",
            "Bytes that passed through WebSockets that are closed, by direction",
            None,
            MetricType::Counter,
        )?;
        for (cell, direction) in self.tunnel_bytes.iter().zip(["received", "sent"]) {
            let count = cell.load(Ordering::Relaxed);
            encode_count(&mut family.encode_family(&[("direction", direction)])?, count)?;
        }
        Ok(())
    }

    /// Counts a connection that ended before it was encrypted.
    pub(crate) fn count_handshake(&self, failure: HandshakeFailure) {
        add(self.handshakes.get(failure as usize), 1);
    }

    /// Counts a connection that ended because of what its caller sent over and over.
    pub(crate) fn count_flood(&self) {
        add(Some(&self.floods), 1);
    }

    /// Counts a request over HTTP/2 that was refused because of what its caller has already.
    pub(crate) fn count_refused_stream(&self, overload: Overload) {
        add(self.refused_streams.get(overload as usize), 1);
    }

    fn encode_exposures(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_keys_exposed",
            "Requests with a valid key where others may have seen it, by where that was",
            None,
            MetricType::Counter,
        )?;
        for (by, count) in self.exposures.counts() {
            let labels = [("by", by.as_str().to_owned())];
            encode_count(&mut family.encode_family(&labels)?, count)?;
        }
        Ok(())
    }

    fn encode_connections(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyward_tls_handshakes_failed",
            "Connections of all listeners that ended before they were encrypted, by reason",
            None,
            MetricType::Counter,
        )?;
        for (failure, cell) in HandshakeFailure::ALL.iter().zip(&self.handshakes) {
            let labels = [("reason", failure.as_str().to_owned())];
            encode_count(&mut family.encode_family(&labels)?, cell.load(Ordering::Relaxed))?;
        }
        let mut floods = encoder.encode_descriptor(
            "keyward_http2_floods",
            "Connections ended because their caller sent too many frames that ask for nothing",
            None,
            MetricType::Counter,
        )?;
        encode_count(&mut floods, self.floods.load(Ordering::Relaxed))?;
        let mut refused = encoder.encode_descriptor(
            "keyward_http2_requests_refused",
            "Requests over HTTP/2 refused because their address has too many under way or untaken",
            None,
            MetricType::Counter,
        )?;
        for (overload, cell) in Overload::ALL.iter().zip(&self.refused_streams) {
            let labels = [("too_many", overload.as_str().to_owned())];
            encode_count(&mut refused.encode_family(&labels)?, cell.load(Ordering::Relaxed))?;
        }
        Ok(())
    }

    fn encode_cuts(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_streams_cut",
            "Streams cut because their key lost its authority, by route template and failed check",
            None,
            MetricType::Counter,
        )?;
        for (position, cell) in self.cuts.iter().enumerate() {
            let count = cell.load(Ordering::Relaxed);
            if count > 0 {
                let step = Step::ALL.get(position % CUT_COLUMNS).map(|step| step.as_str());
                let labels = [
                    ("route", self.route_name(position / CUT_COLUMNS)),
                    ("failed", step.unwrap_or(Loss::Unsure.step()).to_owned()),
                ];
                encode_count(&mut family.encode_family(&labels)?, count)?;
            }
        }
        Ok(())
    }

    fn route_name(&self, row: usize) -> String {
        let route = self.catalog.routes().get(row);
        route.map_or_else(
            || NO_ROUTE.to_owned(),
            |route| format!("{} {}", route.method, route.template),
        )
    }

    fn encode_requests(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_requests",
            "Requests by route template, decision and code",
            None,
            MetricType::Counter,
        )?;
        for (position, cell) in self.requests.iter().enumerate() {
            let count = cell.load(Ordering::Relaxed);
            if count > 0 {
                let labels = self.labels(position / COLUMNS, position % COLUMNS);
                encode_count(&mut family.encode_family(&labels)?, count)?;
            }
        }
        Ok(())
    }

    fn labels(&self, row: usize, column: usize) -> Labels {
        let (decision, code) = match column {
            OK_COLUMN => ("permit", OK),
            CLIENT_GONE_COLUMN => ("permit", CLIENT_GONE),
            _ => ("deny", ErrorCode::ALL.get(column).map_or(OK, |code| code.as_str())),
        };
        [
            ("route", self.route_name(row)),
            ("decision", decision.to_owned()),
            ("code", code.to_owned()),
        ]
    }

    fn encode_upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_upstream_up",
            "Whether an address of an upstream takes requests: 1 or 0",
            None,
            MetricType::Gauge,
        )?;
        for (upstream, address, up) in self.upstreams.addresses() {
            let labels = [("upstream", upstream), ("address", address)];
            family.encode_family(&labels)?.encode_gauge(&u64::from(up))?;
        }
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_upstream_repeats",
            "Requests that were sent to an upstream a second time",
            None,
            MetricType::Counter,
        )?;
        for (upstream, count) in self.upstreams.repeats() {
            encode_count(&mut family.encode_family(&[("upstream", upstream)])?, count)?;
        }
        Ok(())
    }

    fn encode_statuses(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(
            "keyward_gateway_responses",
            "Answers by class of status",
            None,
            MetricType::Counter,
        )?;
        for (position, cell) in self.statuses.iter().enumerate() {
            let labels = [("class", format!("{}xx", position + 1))];
            let count = cell.load(Ordering::Relaxed);
            encode_count(&mut family.encode_family(&labels)?, count)?;
        }
        Ok(())
    }

    fn encode_durations(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let ends = BUCKETS_MS.iter().map(|end| seconds(end * 1_000_000)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|cell| cell.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        let total = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.duration_ns.load(Ordering::Relaxed));
        encoder
            .encode_descriptor(
                "keyward_gateway_duration_seconds",
                "Time from the head of a request to the head of its answer",
                None,
                MetricType::Histogram,
            )?
            .encode_histogram::<NoLabels>(sum, total, &buckets, None)
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        self.encode_requests(&mut encoder)?;
        self.encode_cuts(&mut encoder)?;
        self.encode_connections(&mut encoder)?;
        self.encode_exposures(&mut encoder)?;
        self.encode_statuses(&mut encoder)?;
        self.encode_upstreams(&mut encoder)?;
        self.encode_tunnels(&mut encoder)?;
        self.encode_durations(&mut encoder)
    }
}

fn encode_count(encoder: &mut MetricEncoder<'_>, count: u64) -> std::fmt::Result {
    encoder.encode_counter::<NoLabels, u64, u64>(&count, None)
}

#[expect(clippy::cast_precision_loss, reason = "a sum of durations needs no exact nanosecond")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn add(cell: Option<&AtomicU64>, amount: u64) {
    if let Some(cell) = cell {
        cell.fetch_add(amount, Ordering::Relaxed);
    }
}
