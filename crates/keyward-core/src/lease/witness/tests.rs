use super::*;
use crate::lease::Epoch;

const TERMS: Terms = Terms { lease_ms: 2_000, margin_ms: 50, drift_ppm: 500, stale_ms: 0 };
const OVER_NS: u64 = 2_051_000_000;
const FIRST: Incarnation = Incarnation::FIRST;
const SECOND: Incarnation = Incarnation(2);

fn row(number: u128, renewals: u64) -> Listed {
    Listed { node: NodeId::from_bits(number), applied: Epoch(0), renewals, hold_ms: 2_000 }
}

#[test]
fn a_node_that_was_never_seen_may_decide() {
    assert!(!Witness::default().is_over(&row(1, 1), u64::MAX, TERMS));
}

#[test]
fn a_lease_is_over_when_its_renewal_was_known_for_long_enough() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 3)], 1_000);
    assert!(!witness.is_over(&row(1, 3), 999 + OVER_NS, TERMS));
    assert!(witness.is_over(&row(1, 3), 1_000 + OVER_NS, TERMS));
}

#[test]
fn a_second_look_at_the_same_renewal_changes_nothing() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 3)], 1_000);
    witness.observe(FIRST, &[row(1, 3)], OVER_NS);
    assert!(witness.is_over(&row(1, 3), 1_000 + OVER_NS, TERMS));
}

#[test]
fn every_renewal_counts_anew() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 3)], 0);
    assert!(!witness.is_over(&row(1, 4), u64::MAX, TERMS), "one that was not seen yet");
    witness.observe(FIRST, &[row(1, 4)], 500);
    assert!(!witness.is_over(&row(1, 4), OVER_NS, TERMS));
    assert!(witness.is_over(&row(1, 4), 500 + OVER_NS, TERMS));
}

#[test]
fn a_node_that_was_gone_is_seen_anew() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 3)], 0);
    witness.observe(FIRST, &[], 10);
    witness.observe(FIRST, &[row(1, 3)], 20);
    assert!(!witness.is_over(&row(1, 3), 19 + OVER_NS, TERMS));
}

#[test]
fn nothing_seen_in_another_history_counts() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 3)], 0);
    witness.observe(SECOND, &[row(1, 3)], 20);
    assert!(!witness.is_over(&row(1, 3), 19 + OVER_NS, TERMS));
    assert!(witness.is_over(&row(1, 3), 20 + OVER_NS, TERMS));
}

#[test]
fn a_silent_node_is_forgotten_after_ten_of_its_leases() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 3)], 0);
    assert!(!witness.may_forget(&row(1, 3), 10 * OVER_NS - 1, TERMS));
    assert!(witness.may_forget(&row(1, 3), 10 * OVER_NS, TERMS));
    assert!(!witness.may_forget(&row(1, 4), 10 * OVER_NS, TERMS));
}

#[test]
fn only_a_history_after_the_first_has_to_settle() {
    let mut witness = Witness::default();
    assert_eq!(witness.unsettled_until(FIRST, 0, TERMS), None);
    witness.observe(SECOND, &[], 40);
    let until = Some(40 + OVER_NS);
    assert_eq!(witness.unsettled_until(SECOND, 50, TERMS), until);
    witness.observe(SECOND, &[], 60);
    assert_eq!(witness.unsettled_until(SECOND, 39 + OVER_NS, TERMS), until);
    assert_eq!(witness.unsettled_until(SECOND, 40 + OVER_NS, TERMS), None);
    let third = witness.unsettled_until(Incarnation(3), 70, TERMS);
    assert_eq!(third, Some(70 + OVER_NS), "one that was not seen yet");
}

#[test]
fn settling_takes_as_long_as_a_node_may_go_on_as_stale() {
    let terms = Terms { stale_ms: 10_000, ..TERMS };
    let until = Witness::default().unsettled_until(SECOND, 0, terms);
    assert_eq!(until, Some(terms.certainly_over_ns(12_000)));
}
