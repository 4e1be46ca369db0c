use proptest::prelude::*;

use super::*;

const TERMS: Terms = Terms::DEFAULT;
const FIRST: Incarnation = Incarnation::FIRST;
const SECOND: Incarnation = Incarnation(2);
const MS: u64 = NS_PER_MS;

fn ask(number: u64, renew: bool, applied: u64) -> Ask {
    Ask { ticket: Ticket(number), renew, incarnation: FIRST, applied: Epoch(applied) }
}

fn reply(epoch: u64) -> Event {
    page(epoch, epoch)
}

fn page(epoch: u64, through: u64) -> Event {
    let (epoch, through) = (Epoch(epoch), Epoch(through));
    Event::Answered(Reply { incarnation: FIRST, epoch, through })
}

fn acknowledged(applied: u64) -> Action {
    Action::Acknowledge { incarnation: FIRST, applied: Epoch(applied) }
}

/// A node that has loaded everything up to this change and asks for its first lease.
fn loaded(epoch: u64, now_ns: u64) -> NodeProtocol {
    let mut node = NodeProtocol::new(TERMS, 0);
    assert_eq!(node.step(Event::Tick, now_ns), [Action::Load]);
    let loaded = Event::Loaded { incarnation: FIRST, epoch: Epoch(epoch) };
    assert_eq!(node.step(loaded, now_ns), [Action::Ask(ask(1, true, epoch))]);
    node
}

/// A node with a lease from this instant, and nothing to do.
fn leased(epoch: u64, now_ns: u64) -> NodeProtocol {
    let mut node = loaded(epoch, now_ns);
    assert_eq!(node.step(reply(epoch), now_ns), [Action::Apply]);
    let granted = [Action::Grant(TERMS.lease(now_ns)), Action::Release(Ticket(1))];
    assert_eq!(node.step(Event::Applied, now_ns), granted);
    node
}

#[test]
fn nothing_is_true_before_everything_is_loaded() {
    let node = NodeProtocol::new(TERMS, 7);
    assert_eq!((node.applied(), node.incarnation(), node.wake_at_ns()), (None, None, 0));
    let node = loaded(4, 0);
    assert_eq!((node.applied(), node.incarnation()), (Some(Epoch(4)), Some(FIRST)));
}

#[test]
fn a_lease_counts_from_before_its_ask_was_sent() {
    let mut node = loaded(4, 10 * MS);
    assert_eq!(node.step(reply(4), 300 * MS), [Action::Apply]);
    let granted = [Action::Grant(TERMS.lease(10 * MS)), Action::Release(Ticket(1))];
    assert_eq!(node.step(Event::Applied, 500 * MS), granted);
}

#[test]
fn a_lease_is_granted_only_when_the_changes_of_its_ask_are_in_memory() {
    let mut node = loaded(4, 0);
    assert_eq!(node.step(reply(6), MS), [Action::Apply]);
    assert_eq!(node.applied(), Some(Epoch(4)), "told to put them there is not having done so");
    let then = [acknowledged(6), Action::Grant(TERMS.lease(0)), Action::Release(Ticket(1))];
    assert_eq!(node.step(Event::Applied, MS), then);
    assert_eq!(node.applied(), Some(Epoch(6)));
}

#[test]
fn an_answer_with_too_many_changes_earns_nothing_until_the_last_page() {
    let mut node = loaded(0, 0);
    assert_eq!(node.step(page(9, 5), MS), [Action::Apply]);
    let next = [acknowledged(5), Action::Ask(ask(2, true, 5))];
    assert_eq!(node.step(Event::Applied, 2 * MS), next);
    assert_eq!(node.step(page(9, 9), 3 * MS), [Action::Apply]);
    let granted = TERMS.lease(2 * MS);
    let then = [acknowledged(9), Action::Grant(granted), Action::Release(Ticket(2))];
    assert_eq!(node.step(Event::Applied, 3 * MS), then);
}

#[test]
fn it_renews_four_times_in_a_lease() {
    let mut node = leased(4, 0);
    assert_eq!(node.wake_at_ns(), 500 * MS);
    assert_eq!(node.step(Event::Tick, 500 * MS - 1), []);
    assert_eq!(node.step(Event::Tick, 500 * MS), [Action::Ask(ask(2, true, 4))]);
    assert_eq!(node.wake_at_ns(), u64::MAX, "it waits for the answer");
}

#[test]
fn a_hint_asks_at_once_and_earns_no_lease() {
    let mut node = leased(4, 0);
    let asked = node.step(Event::Heard(Some(Epoch(5))), MS);
    assert_eq!(asked, [Action::Ask(ask(2, false, 4))]);
    assert_eq!(node.step(reply(5), 2 * MS), [Action::Apply]);
    let then = [acknowledged(5), Action::Release(Ticket(2))];
    assert_eq!(node.step(Event::Applied, 2 * MS), then);
    assert_eq!(node.wake_at_ns(), 500 * MS, "the next renewal is due when it was");
}

#[test]
fn a_hint_of_what_is_applied_does_nothing() {
    let mut node = leased(4, 0);
    assert_eq!(node.step(Event::Heard(Some(Epoch(4))), MS), []);
    assert_eq!(node.step(Event::Heard(None), MS), [Action::Ask(ask(2, false, 4))]);
}

#[test]
fn a_hint_that_comes_during_an_ask_is_followed_after_it() {
    let mut node = leased(4, 0);
    node.step(Event::Heard(Some(Epoch(5))), MS);
    assert_eq!(node.step(Event::Heard(Some(Epoch(6))), MS), []);
    node.step(reply(5), 2 * MS);
    let then = [acknowledged(5), Action::Release(Ticket(2)), Action::Ask(ask(3, false, 5))];
    assert_eq!(node.step(Event::Applied, 2 * MS), then);
}

#[test]
fn a_hint_of_a_change_that_never_comes_is_not_chased() {
    let mut node = leased(4, 0);
    node.step(Event::Heard(Some(Epoch(1_000))), MS);
    node.step(reply(4), 2 * MS);
    assert_eq!(node.step(Event::Applied, 2 * MS), [Action::Release(Ticket(2))]);
}

#[test]
fn a_barrier_is_an_ask_that_was_sent_after_it_was_wanted() {
    let mut node = leased(4, 0);
    assert_eq!(node.next_ticket(), Ticket(2));
    assert_eq!(node.step(Event::Wanted, MS), [Action::Ask(ask(2, false, 4))]);
    assert_eq!(node.next_ticket(), Ticket(3), "who comes now waits for another one");
    assert_eq!(node.step(Event::Wanted, MS), []);
    node.step(reply(4), 2 * MS);
    let then = [Action::Release(Ticket(2)), Action::Ask(ask(3, false, 4))];
    assert_eq!(node.step(Event::Applied, 2 * MS), then, "one ask for all who came meanwhile");
}

#[test]
fn a_failed_ask_is_tried_again_after_a_pause_that_grows() {
    let mut node = leased(4, 0);
    let mut now_ns = 500 * MS;
    let mut ticket = 2;
    for pause_ms in [50, 100, 200, 400, 800, 800] {
        assert_eq!(node.step(Event::Tick, now_ns), [Action::Ask(ask(ticket, true, 4))]);
        let refused = [Action::Refuse(Ticket(ticket + 1))];
        assert_eq!(node.step(Event::Failed, now_ns), refused);
        assert_eq!(node.wake_at_ns(), now_ns + pause_ms * MS);
        now_ns += pause_ms * MS;
        ticket += 2;
    }
    node.step(Event::Tick, now_ns);
    node.step(reply(4), now_ns);
    node.step(Event::Applied, now_ns);
    assert_eq!(node.wake_at_ns(), now_ns + 500 * MS, "an answer ends the row of failures");
}

#[test]
fn a_failed_read_is_tried_again_before_the_next_renewal() {
    let mut node = leased(4, 0);
    node.step(Event::Heard(Some(Epoch(5))), MS);
    node.step(Event::Failed, 2 * MS);
    assert_eq!(node.wake_at_ns(), 52 * MS);
    assert_eq!(node.step(Event::Tick, 52 * MS), [Action::Ask(ask(4, false, 4))]);
}

#[test]
fn nodes_do_not_try_again_at_the_same_instant() {
    let woken = |spread| {
        let mut node = NodeProtocol::new(TERMS, spread);
        node.step(Event::Tick, 0);
        node.step(Event::Failed, 0);
        node.wake_at_ns()
    };
    assert_eq!(woken(0), 50 * MS);
    assert_eq!(woken(3 * MS), 53 * MS);
    assert_eq!(woken(u64::MAX), 50 * MS + u64::MAX % (50 * MS));
}

#[test]
fn who_waits_for_a_failed_ask_is_turned_away_and_nobody_else() {
    let mut node = leased(4, 0);
    node.step(Event::Wanted, MS);
    let late = node.next_ticket();
    node.step(Event::Wanted, MS);
    assert_eq!(node.step(Event::Failed, 2 * MS), [Action::Refuse(late)]);
    let pausing = node.next_ticket();
    assert!(pausing > late);
    assert_eq!(node.step(Event::Wanted, 3 * MS), [Action::Refuse(pausing)]);
    let after = node.next_ticket();
    assert!(after > pausing, "a later ticket is not among those turned away");
    let Ticket(number) = after;
    assert_eq!(node.step(Event::Wanted, 60 * MS), [Action::Ask(ask(number, false, 4))]);
}

#[test]
fn nobody_waits_for_a_node_that_has_nothing_in_memory() {
    let mut node = NodeProtocol::new(TERMS, 0);
    assert_eq!(node.step(Event::Wanted, 0), [Action::Refuse(Ticket(1)), Action::Load]);
    assert_eq!(node.step(Event::Wanted, 0), [Action::Refuse(Ticket(2))]);
}

#[test]
fn another_history_ends_the_lease_before_anything_is_loaded() {
    let mut node = leased(4, 0);
    node.step(Event::Tick, 500 * MS);
    let epoch = Epoch(9);
    let other = Reply { incarnation: SECOND, epoch, through: epoch };
    let then = [Action::Grant(Lease::OVER), Action::Refuse(Ticket(3)), Action::Load];
    assert_eq!(node.step(Event::Answered(other), 501 * MS), then);
    assert_eq!(node.applied(), None);
    let loaded = Event::Loaded { incarnation: SECOND, epoch: Epoch(3) };
    let asked = Ask { ticket: Ticket(4), renew: true, incarnation: SECOND, applied: Epoch(3) };
    assert_eq!(node.step(loaded, 502 * MS), [Action::Ask(asked)]);
}

#[test]
fn an_authority_that_went_back_is_another_history() {
    let mut node = leased(4, 0);
    node.step(Event::Tick, 500 * MS);
    let actions = node.step(reply(3), 501 * MS);
    assert_eq!(actions.first(), Some(&Action::Grant(Lease::OVER)));
    assert_eq!(actions.last(), Some(&Action::Load));
}

#[test]
fn a_load_that_fails_is_tried_again() {
    let mut node = NodeProtocol::new(TERMS, 0);
    node.step(Event::Tick, 0);
    assert_eq!(node.step(Event::Failed, MS), [Action::Refuse(Ticket(1))]);
    assert_eq!(node.wake_at_ns(), 51 * MS);
    assert_eq!(node.step(Event::Tick, 51 * MS), [Action::Load]);
}

#[test]
fn an_end_in_order_withdraws_the_lease_before_it_leaves() {
    let mut node = leased(4, 0);
    let then = [Action::Grant(Lease::OVER), Action::Refuse(Ticket(2)), Action::Deregister];
    assert_eq!(node.step(Event::Stop, MS), then);
    assert!(node.is_stopped());
    for event in [Event::Tick, Event::Stop, Event::Heard(None), Event::Applied, Event::Failed] {
        assert_eq!(node.step(event, 900 * MS), []);
    }
    assert_eq!(node.step(Event::Wanted, 900 * MS), [Action::Refuse(Ticket(3))]);
    assert_eq!(node.wake_at_ns(), u64::MAX);
}

#[test]
fn a_node_that_renews_leaves_only_after_its_renewal() {
    for outcome in [reply(4), Event::Failed] {
        let mut node = loaded(4, 0);
        let then = [Action::Grant(Lease::OVER), Action::Refuse(Ticket(2))];
        assert_eq!(node.step(Event::Stop, MS), then);
        assert!(!node.is_stopped());
        assert_eq!(node.step(outcome, 2 * MS), [Action::Deregister]);
        assert!(node.is_stopped());
    }
}

#[test]
fn what_comes_too_late_changes_nothing() {
    let mut node = leased(4, 0);
    let before = node.clone();
    for event in [reply(9), Event::Applied, Event::Failed] {
        assert_eq!(node.step(event, MS), []);
    }
    let loaded = Event::Loaded { incarnation: SECOND, epoch: Epoch(1) };
    assert_eq!(node.step(loaded, MS), []);
    assert_eq!(node, before);
}

/// What may come from outside at any time.
fn any_event() -> impl Strategy<Value = Event> {
    let epoch = || (0_u64..6).prop_map(Epoch);
    let incarnation = || (1_u64..3).prop_map(Incarnation);
    prop_oneof![
        3 => Just(Event::Tick),
        1 => epoch().prop_map(|epoch| Event::Heard(Some(epoch))),
        1 => Just(Event::Heard(None)),
        1 => Just(Event::Wanted),
        4 => (incarnation(), epoch(), 0_u64..3).prop_map(|(incarnation, epoch, less)| {
            let through = Epoch(epoch.0.saturating_sub(less));
            Event::Answered(Reply { incarnation, epoch, through })
        }),
        4 => Just(Event::Applied),
        2 => (incarnation(), epoch())
            .prop_map(|(incarnation, epoch)| Event::Loaded { incarnation, epoch }),
        1 => Just(Event::Failed),
    ]
}

proptest! {
    /// Whatever comes in whatever order: applied never goes back within a history, one thing at a
    /// time is under way, a lease comes only from the newest renewal and from before it was sent,
    /// tickets never come back, and nobody is let go on by an ask that was sent before he came.
    #[test]
    fn rules_hold_in_every_order(
        events in prop::collection::vec((any_event(), 0_u64..700), 0..120),
    ) {
        let mut node = NodeProtocol::new(TERMS, 0);
        let mut now_ns = 0;
        let mut last_ticket = Ticket(0);
        let mut sent: Option<(Ask, u64)> = None;
        for (event, pause_ms) in events {
            now_ns += pause_ms * MS;
            let before = node.clone();
            let actions = node.step(event, now_ns);
            if node.incarnation() == before.incarnation() {
                prop_assert!(node.applied() >= before.applied());
            }
            for action in actions {
                match action {
                    Action::Ask(ask) => {
                        prop_assert!(ask.ticket > last_ticket);
                        prop_assert_eq!(Some(ask.applied), node.applied());
                        prop_assert_eq!(Some(ask.incarnation), node.incarnation());
                        last_ticket = ask.ticket;
                        sent = Some((ask, now_ns));
                    }
                    Action::Grant(Lease::OVER) => prop_assert_eq!(node.applied(), None),
                    Action::Grant(lease) => {
                        prop_assert_eq!(event, Event::Applied);
                        let (ask, sent_ns) = sent.unwrap();
                        prop_assert!(ask.renew);
                        prop_assert_eq!(lease, TERMS.lease(sent_ns));
                    }
                    Action::Release(ticket) => {
                        prop_assert_eq!(event, Event::Applied);
                        prop_assert_eq!(ticket, sent.unwrap().0.ticket);
                    }
                    Action::Refuse(ticket) => {
                        prop_assert!(ticket >= before.next_ticket());
                        prop_assert!(ticket < node.next_ticket());
                        last_ticket = ticket;
                    }
                    Action::Acknowledge { incarnation, applied } => {
                        prop_assert_eq!(Some(incarnation), node.incarnation());
                        prop_assert_eq!(Some(applied), node.applied());
                    }
                    Action::Apply | Action::Load | Action::Deregister => {}
                }
            }
        }
    }

    /// A node whose authority answers again has a lease again within the longest pause.
    #[test]
    fn it_recovers(failures in 1_u32..12) {
        let mut node = leased(0, 0);
        let mut now_ns = 500 * MS;
        for _ in 0..failures {
            node.step(Event::Tick, now_ns);
            node.step(Event::Failed, now_ns);
            prop_assert!(node.wake_at_ns() - now_ns <= 850 * MS);
            now_ns = node.wake_at_ns();
        }
        node.step(Event::Tick, now_ns);
        node.step(reply(0), now_ns);
        let actions = node.step(Event::Applied, now_ns);
        prop_assert_eq!(actions.first(), Some(&Action::Grant(TERMS.lease(now_ns))));
    }
}
