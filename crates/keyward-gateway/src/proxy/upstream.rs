//! Where permitted requests go.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use keyward_core::catalog::{Catalog, Route};
use keyward_core::environment::Environment;

use crate::proxy::address::Address;
use crate::proxy::config::{
    Balance, InvalidUpstream, MAX_ADDRESSES, UpstreamConfig, UpstreamProtocol,
};
use crate::proxy::gate::Gate;
use crate::proxy::target::Target;
use crate::proxy::tls::Trust;

/// An upstream that is ready for use.
pub(crate) struct Upstream {
    pub(crate) config: UpstreamConfig,
    pub(super) targets: Box<[Target]>,
    pub(super) gate: Option<Gate>,
    /// Whether addresses that were taken out are brought back; unless they are, none is taken out.
    pub(super) is_checked: AtomicBool,
    /// Requests that were sent a second time.
    pub(super) repeats: AtomicU64,
    /// Where the next request begins to look for an address.
    next: AtomicUsize,
}

/// The upstreams of a node, by route and environment.
pub(crate) struct Upstreams {
    all: Box<[Upstream]>,
    /// For each route of the catalogue, the position of its upstream in each environment.
    by_route: Box<[[Option<usize>; Environment::ALL.len()]]>,
}

/// Addresses that a request was tried at already, as bits of their positions.
#[derive(Clone, Copy, Default)]
pub(super) struct Tried(u64);

impl Upstreams {
    pub(crate) fn new(
        configs: Vec<UpstreamConfig>,
        catalog: &Catalog,
    ) -> Result<Self, InvalidUpstream> {
        let upstreams: Result<Box<[_]>, _> = configs.into_iter().map(Upstream::new).collect();
        let all = upstreams?;
        for upstream in &all {
            check_paths(upstream, catalog.routes())?;
        }
        let row = |route: &Route| -> Result<_, InvalidUpstream> {
            let mut row = [None; Environment::ALL.len()];
            for (place, environment) in row.iter_mut().zip(Environment::ALL) {
                *place = choose(&all, environment, route)?;
            }
            Ok(row)
        };
        let by_route = catalog.routes().iter().map(row).collect::<Result<_, _>>()?;
        Ok(Self { all, by_route })
    }

    /// The upstream of a route, by the route's position in the catalogue.
    pub(crate) fn of(&self, environment: Environment, route: usize) -> Option<&Upstream> {
        let position = *self.by_route.get(route)?.get(environment as usize)?;
        self.all.get(position?)
    }

    pub(super) fn all(&self) -> &[Upstream] {
        &self.all
    }

    /// Each address with the name of its upstream, and whether it takes requests.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&str, &str, bool)> {
        self.all.iter().flat_map(|upstream| {
            let label = upstream.config.label();
            let shown = |it: &'_ Target| !it.health.is_down();
            upstream.targets.iter().map(move |it| (label, it.address.text.as_str(), shown(it)))
        })
    }

    /// How many requests were sent to each upstream a second time.
    pub(crate) fn repeats(&self) -> impl Iterator<Item = (&str, u64)> {
        self.all.iter().map(|it| (it.config.label(), it.repeats.load(Ordering::Relaxed)))
    }
}

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.addresses()).finish()
    }
}

/// The position of the upstream that takes a route: the one it asks for, else that of the longest
/// path, else the one that takes the rest. The only one of an environment takes everything.
fn choose(
    all: &[Upstream],
    environment: Environment,
    route: &Route,
) -> Result<Option<usize>, InvalidUpstream> {
    let candidates: Vec<(usize, &UpstreamConfig)> = all
        .iter()
        .map(|upstream| &upstream.config)
        .enumerate()
        .filter(|(_, config)| config.environments.contains(environment))
        .collect();
    let shown = || format!("{} {}", route.method, route.template);
    let only = |found: Vec<usize>, what: String| match *found.as_slice() {
        [] => Ok(None),
        [position] => Ok(Some(position)),
        _ => Err(InvalidUpstream::Twice(environment, what)),
    };
    let positions = |matches: &dyn Fn(&UpstreamConfig) -> bool| -> Vec<usize> {
        let matching = candidates.iter().filter(|(_, config)| matches(config));
        matching.map(|(position, _)| *position).collect()
    };
    let chosen = match (candidates.as_slice(), &route.forwarding.upstream) {
        ([], _) => return Ok(None),
        ([(position, _)], _) => Some(*position),
        (_, Some(name)) => {
            let named = positions(&|config| config.name.as_ref() == Some(name));
            let unknown = || InvalidUpstream::Unknown(environment, shown(), name.clone());
            Some(only(named, format!("the name {name}"))?.ok_or_else(unknown)?)
        }
        (_, None) => {
            let longest = |config: &UpstreamConfig| {
                let below = config.paths.iter().filter(|path| is_below(&route.template, path));
                below.map(|path| path.trim_end_matches('/').len()).max()
            };
            let best = candidates.iter().filter_map(|(_, config)| longest(config)).max();
            let by_path = match best {
                Some(_) => only(positions(&|config| longest(config) == best), shown())?,
                None => None,
            };
            let rest = || only(positions(&takes_the_rest), "the rest".to_owned());
            by_path.map_or_else(rest, |position| Ok(Some(position)))?
        }
    };
    match &chosen {
        None if route.builtin.is_none() => Err(InvalidUpstream::Untaken(environment, shown())),
        Some(position) => {
            let config = all.get(*position).map(|it| &it.config);
            let refused = config.filter(|config| {
                route.forwarding.websocket && config.protocol == UpstreamProtocol::Http2
            });
            let wrong = |config: &UpstreamConfig| {
                InvalidUpstream::NoUpgrade(config.label().to_owned(), shown())
            };
            refused.map_or(Ok(chosen), |config| Err(wrong(config)))
        }
        None => Ok(None),
    }
}

const fn takes_the_rest(config: &UpstreamConfig) -> bool {
    config.name.is_none() && config.paths.is_empty()
}

/// Whether a template lies below a path, segment by segment.
fn is_below(template: &str, path: &str) -> bool {
    let path = path.trim_end_matches('/');
    template.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A path that no route has is a mistake that would send requests to the wrong upstream.
fn check_paths(upstream: &Upstream, routes: &[Route]) -> Result<(), InvalidUpstream> {
    let paths = &upstream.config.paths;
    let idle = paths.iter().find(|path| {
        !path.starts_with('/') || !routes.iter().any(|route| is_below(&route.template, path))
    });
    idle.map_or(Ok(()), |path| {
        Err(InvalidUpstream::NoRoute(upstream.config.label().to_owned(), path.clone()))
    })
}

impl Upstream {
    fn new(config: UpstreamConfig) -> Result<Self, InvalidUpstream> {
        check(&config)?;
        let addresses: Result<Vec<Address>, _> =
            config.addresses.iter().map(|text| Address::parse(text)).collect();
        let addresses = addresses?;
        let secured = addresses.iter().any(Address::is_tls);
        let trust = if secured { Some(Trust::of(&config)?) } else { None };
        let target = |address: Address| {
            let trust = trust.as_ref().filter(|_| address.is_tls());
            Target::new(address, &config, trust)
        };
        let targets = addresses.into_iter().map(target).collect::<Result<_, _>>()?;
        Ok(Self {
            targets,
            gate: config.max_requests.map(|most| Gate::new(most, config.queue_timeout)),
            is_checked: AtomicBool::new(false),
            repeats: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            config,
        })
    }

    /// The address for a request that was tried at some already; `None` when all others are down.
    pub(super) fn choose(&self, tried: Tried) -> Option<(usize, &Target)> {
        if let [only] = &*self.targets {
            return (tried.0 == 0 && !only.health.is_down()).then_some((0, only));
        }
        // a second try is no turn of its own
        let turn = if tried.0 == 0 {
            self.next.fetch_add(1, Ordering::Relaxed)
        } else {
            self.next.load(Ordering::Relaxed)
        };
        let begin = turn % self.targets.len();
        let (first, last) = self.targets.split_at(begin);
        let numbered = last.iter().zip(begin..).chain(first.iter().zip(0..));
        let mut open = numbered
            .filter(|(target, position)| !tried.contains(*position) && !target.health.is_down());
        let chosen = match self.config.balance {
            Balance::RoundRobin => open.next(),
            Balance::LeastRequests => open.min_by_key(|(target, _)| target.load()),
        };
        chosen.map(|(target, position)| (position, target))
    }

    /// Whether requests that could not be delivered speak against their address.
    pub(super) fn counts_failures(&self) -> bool {
        self.targets.len() > 1 && self.is_checked.load(Ordering::Relaxed)
    }

    pub(super) fn idle_ns(&self) -> u64 {
        u64::try_from(self.config.pool_idle_timeout.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Tried {
    pub(super) fn with(self, position: usize) -> Self {
        Self(self.0 | (1 << (position % MAX_ADDRESSES)))
    }

    const fn contains(self, position: usize) -> bool {
        self.0 & (1 << (position % MAX_ADDRESSES)) != 0
    }
}

/// What can be wrong with an upstream whatever its addresses are.
fn check(config: &UpstreamConfig) -> Result<(), InvalidUpstream> {
    let label = || config.label().to_owned();
    let mut once = config.addresses.clone();
    once.sort_unstable();
    once.dedup();
    if once.is_empty() || once.len() > MAX_ADDRESSES || once.len() < config.addresses.len() {
        return Err(InvalidUpstream::Addresses(label()));
    }
    let health = &config.health;
    let zeros = [
        (config.max_requests == Some(0), "max-requests"),
        (health.interval.is_zero(), "health.interval"),
        (health.timeout.is_zero(), "health.timeout"),
        (health.down_after == 0, "health.down-after"),
        (health.up_after == 0, "health.up-after"),
    ];
    if let Some((_, what)) = zeros.iter().find(|(zero, _)| *zero) {
        return Err(InvalidUpstream::Zero(label(), what));
    }
    let odd = |path: &&String| {
        !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match health.path.as_ref().filter(odd) {
        Some(path) => Err(InvalidUpstream::HealthPath(path.clone())),
        None => Ok(()),
    }
}
