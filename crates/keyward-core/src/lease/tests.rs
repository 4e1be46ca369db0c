use proptest::prelude::*;

use super::*;

fn any_terms() -> impl Strategy<Value = Terms> {
    (100_u64..60_000, 0_u64..100, 0_u64..100_000, 0_u64..60_000).prop_map(
        |(lease_ms, margin_ms, drift_ppm, stale_ms)| Terms {
            lease_ms,
            margin_ms,
            drift_ppm,
            stale_ms,
        },
    )
}

#[test]
fn the_times_that_a_deployment_gets_unless_it_says_otherwise() {
    let terms = Terms::DEFAULT;
    assert_eq!(terms.hold_ms(), 2_000);
    assert_eq!(terms.lease(1_000).until_ns, 1_000 + 1_950 * NS_PER_MS);
    assert_eq!(terms.lease(1_000).stale_until_ns, terms.lease(1_000).until_ns);
    assert_eq!(terms.certainly_over_ns(terms.hold_ms()), 2_051 * NS_PER_MS);
    assert_eq!(terms.renew_every_ns(), 500 * NS_PER_MS);
}

#[test]
fn a_stale_node_goes_on_for_longer() {
    let terms = Terms { stale_ms: 30_000, ..Terms::DEFAULT };
    let lease = terms.lease(0);
    assert_eq!(terms.hold_ms(), 32_000);
    assert_eq!(lease.until_ns, 1_950 * NS_PER_MS);
    assert_eq!(lease.stale_until_ns, 31_950 * NS_PER_MS);
}

#[test]
fn what_is_over_is_over_at_every_instant() {
    assert_eq!(Lease::default(), Lease::OVER);
    assert_eq!((Lease::OVER.until_ns, Lease::OVER.stale_until_ns), (0, 0));
}

#[test]
fn an_epoch_is_shown_as_its_number() {
    assert_eq!(Epoch(42).to_string(), "42");
    assert_eq!(Epoch::default(), Epoch(0));
}

proptest! {
    /// The writer waits until the holder has stopped, however the rates of their clocks differ
    /// within the bound: the writer's may be fast, the holder's slow.
    #[test]
    fn a_writer_outwaits_every_lease(
        terms in any_terms(),
        share in 0_u64..=1_000,
        sent_ns in 0_u64..1 << 50,
    ) {
        let lease = terms.lease(sent_ns);
        let held_ns = u128::from(lease.stale_until_ns - sent_ns);
        let ppm = u128::from(terms.drift_ppm * share / 1_000);
        // nanoseconds of the writer's clock while the holder's shows those of the lease
        let passed_ns = held_ns * (1_000_000 + ppm) / 1_000_000;
        prop_assert!(u128::from(terms.certainly_over_ns(terms.hold_ms())) >= passed_ns);
    }

    /// Two renewals fit into a lease, so one may fail.
    #[test]
    fn a_healthy_node_never_runs_out(terms in any_terms(), sent_ns in 0_u64..1 << 50) {
        prop_assume!(terms.margin_ms * 2 < terms.lease_ms);
        prop_assert!(terms.lease(sent_ns).until_ns > sent_ns + terms.renew_every_ns());
    }

    /// Nothing wraps around, whatever the clock shows and the settings say.
    #[test]
    fn nothing_overflows(sent_ns: u64, hold_ms: u64) {
        let terms = Terms::DEFAULT;
        prop_assert!(terms.lease(sent_ns).until_ns >= sent_ns);
        prop_assert!(terms.certainly_over_ns(hold_ms) >= terms.certainly_over_ns(0));
    }
}
