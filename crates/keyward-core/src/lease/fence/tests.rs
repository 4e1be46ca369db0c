use super::*;

const TERMS: Terms = Terms { lease_ms: 2_000, margin_ms: 50, drift_ppm: 500, stale_ms: 0 };
const MS: u64 = 1_000_000;
/// Two seconds, a thousandth of a second of drift, and the margin.
const OVER_NS: u64 = 2_051 * MS;
const FIRST: Incarnation = Incarnation::FIRST;
const SECOND: Incarnation = Incarnation(2);
const CHANGE: Epoch = Epoch(5);

fn node(number: u128) -> NodeId {
    NodeId::from_bits(number)
}

fn row(number: u128, applied: u64) -> Listed {
    Listed { node: node(number), applied: Epoch(applied), renewals: 7, hold_ms: 2_000 }
}

fn raise(listed: &[Listed], since_ns: u64, witness: &Witness) -> Fence {
    Fence::raise(CHANGE, FIRST, listed, since_ns, witness, TERMS)
}

fn propagating(by_ns: u64, unconfirmed: usize) -> Standing {
    Standing::Propagating { by_ns, unconfirmed }
}

#[test]
fn a_change_is_effective_at_once_where_nobody_else_decides() {
    let mut fence = raise(&[], 0, &Witness::default());
    assert_eq!(fence.standing(0), Standing::Effective);
    assert_eq!(fence.epoch(), CHANGE);
}

#[test]
fn every_listed_node_is_waited_for_until_it_has_applied_the_change() {
    let mut fence = raise(&[row(1, 4), row(2, 3), row(3, 5)], 10, &Witness::default());
    assert_eq!(fence.standing(10), propagating(10 + OVER_NS, 2));
    assert!(fence.awaits(node(1)) && !fence.awaits(node(3)));
    fence.seen(FIRST, &[row(1, 5), row(2, 4), row(3, 5)]);
    assert!(fence.awaits_only(node(2)));
    assert_eq!(fence.standing(11), propagating(10 + OVER_NS, 1));
    fence.seen(FIRST, &[row(1, 5), row(2, 6)]);
    assert_eq!(fence.standing(12), Standing::Effective);
}

#[test]
fn a_node_that_is_gone_has_left() {
    let mut fence = raise(&[row(1, 4)], 0, &Witness::default());
    fence.seen(FIRST, &[]);
    assert_eq!(fence.standing(1), Standing::Effective);
}

#[test]
fn a_register_of_another_history_tells_nothing() {
    let mut fence = raise(&[row(1, 4)], 0, &Witness::default());
    fence.seen(SECOND, &[]);
    fence.seen(SECOND, &[row(1, 9)]);
    fence.confirmed(SECOND, node(1));
    assert_eq!(fence.standing(1), propagating(OVER_NS, 1));
}

#[test]
fn a_node_that_says_so_itself_is_not_waited_for() {
    let mut fence = raise(&[row(1, 4)], 0, &Witness::default());
    fence.confirmed(FIRST, node(2));
    assert!(fence.awaits(node(1)));
    fence.confirmed(FIRST, node(1));
    assert_eq!(fence.standing(1), Standing::Effective);
}

#[test]
fn nobody_is_waited_for_longer_than_its_lease_can_last() {
    let mut fence = raise(&[row(1, 0)], 1_000, &Witness::default());
    assert_eq!(fence.standing(999 + OVER_NS), propagating(1_000 + OVER_NS, 1));
    assert_eq!(fence.standing(1_000 + OVER_NS), Standing::Effective);
}

#[test]
fn a_node_that_may_go_on_for_longer_is_waited_for_longer() {
    let stale = Listed { hold_ms: 12_000, ..row(2, 0) };
    let mut fence = raise(&[row(1, 0), stale], 0, &Witness::default());
    assert_eq!(fence.standing(OVER_NS), propagating(12_056 * MS, 1));
}

#[test]
fn what_is_effective_stays_effective() {
    let mut fence = raise(&[row(1, 4)], 0, &Witness::default());
    fence.seen(FIRST, &[row(1, 5)]);
    assert_eq!(fence.standing(1), Standing::Effective);
    // another node joins, the same one comes back as if it knew nothing
    fence.seen(FIRST, &[row(1, 0), row(2, 0)]);
    assert_eq!(fence.standing(2), Standing::Effective);
}

#[test]
fn a_node_whose_lease_was_seen_to_end_is_not_waited_for() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 0)], 0);
    assert!(raise(&[row(1, 0)], OVER_NS - 1, &witness).awaits(node(1)));
    assert!(!raise(&[row(1, 0)], OVER_NS, &witness).awaits(node(1)));
    let renewed = Listed { renewals: 8, ..row(1, 0) };
    assert!(raise(&[renewed], OVER_NS, &witness).awaits(node(1)));
}

#[test]
fn a_new_history_waits_for_leases_that_its_register_does_not_show() {
    let mut witness = Witness::default();
    witness.observe(FIRST, &[row(1, 0)], 0);
    witness.observe(SECOND, &[], 100);
    let mut fence = Fence::raise(CHANGE, SECOND, &[], 300, &witness, TERMS);
    assert!(fence.awaits_only(node(9)), "there is nobody to be told");
    assert_eq!(fence.standing(300), propagating(100 + OVER_NS, 0));
    fence.seen(SECOND, &[]);
    assert_eq!(fence.standing(99 + OVER_NS), propagating(100 + OVER_NS, 0));
    assert_eq!(fence.standing(100 + OVER_NS), Standing::Effective);
    let mut later = Fence::raise(CHANGE, SECOND, &[], 100 + OVER_NS, &witness, TERMS);
    assert_eq!(later.standing(100 + OVER_NS), Standing::Effective);
}

#[test]
fn a_process_that_never_saw_a_history_waits_from_its_own_change_on() {
    let mut fence = Fence::raise(CHANGE, SECOND, &[], 300, &Witness::default(), TERMS);
    assert_eq!(fence.standing(300), propagating(300 + OVER_NS, 0));
    assert_eq!(fence.standing(300 + OVER_NS), Standing::Effective);
}
