use proptest::prelude::*;

use super::*;
use crate::id::{KeyId, TenantId};

fn key(number: u128) -> Invalidation {
    Invalidation::Key(TenantId::from_bits(1), KeyId::from_bits(number))
}

fn at(applied: u64) -> Fills {
    let mut fills = Fills::default();
    fills.reload(Epoch(applied));
    fills
}

fn apply(fills: &mut Fills, number: u128, epoch: u64) {
    assert!(fills.overwrites(key(number), Epoch(epoch), Epoch(epoch)));
    fills.applied(Epoch(epoch));
}

#[test]
fn a_reading_that_nothing_crossed_is_admitted() {
    let mut fills = at(5);
    let stamp = fills.begin();
    assert!(fills.admits(stamp, Epoch(5), &[key(1)]));
    fills.end(stamp);
    assert_eq!(fills, at(5), "nothing is kept of it");
}

#[test]
fn a_reading_from_before_a_change_that_was_applied_meanwhile_is_refused() {
    let mut fills = at(5);
    let stamp = fills.begin();
    apply(&mut fills, 1, 6);
    assert!(!fills.admits(stamp, Epoch(5), &[key(1)]));
    assert!(fills.admits(stamp, Epoch(6), &[key(1)]), "one from after it is not");
    assert!(fills.admits(stamp, Epoch(5), &[key(2)]), "nor is one of something else");
    assert!(!fills.admits(stamp, Epoch(5), &[key(2), key(1)]), "all of it must be");
}

#[test]
fn a_change_is_remembered_as_long_as_a_reading_began_before_it() {
    let mut fills = at(5);
    let early = fills.begin();
    apply(&mut fills, 1, 6);
    let late = fills.begin();
    fills.end(late);
    assert!(!fills.admits(early, Epoch(5), &[key(1)]));
    fills.end(early);
    assert_eq!(fills.touched, BTreeMap::new());
}

#[test]
fn a_reading_that_begins_while_a_change_is_put_into_memory_is_after_that_change() {
    let mut fills = at(5);
    assert!(fills.overwrites(key(1), Epoch(6), Epoch(6)));
    let stamp = fills.begin();
    fills.applied(Epoch(6));
    // its snapshot was taken later than the answer that told of the change
    assert!(fills.admits(stamp, Epoch(6), &[key(1)]));
}

#[test]
fn a_reading_from_before_everything_was_loaded_anew_is_refused() {
    let mut fills = at(5);
    let stamp = fills.begin();
    fills.reload(Epoch(9));
    assert!(!fills.admits(stamp, Epoch(9), &[key(1)]));
    fills.end(stamp);
    let stamp = fills.begin();
    assert!(fills.admits(stamp, Epoch(9), &[key(1)]));
}

#[test]
fn a_change_that_was_read_earlier_leaves_a_newer_reading_alone() {
    let mut fills = at(5);
    let stamp = fills.begin();
    assert!(fills.admits(stamp, Epoch(8), &[key(1)]));
    fills.end(stamp);
    assert!(!fills.overwrites(key(1), Epoch(6), Epoch(7)), "the facts in memory are of 8");
    assert!(fills.overwrites(key(2), Epoch(6), Epoch(7)));
    assert!(fills.overwrites(key(1), Epoch(6), Epoch(8)));
    fills.applied(Epoch(7));
    assert!(!fills.overwrites(key(1), Epoch(7), Epoch(7)));
    fills.applied(Epoch(8));
    assert_eq!(fills, at(8), "from there on the stream knows more");
}

#[test]
fn an_older_reading_does_not_replace_a_newer_one() {
    let mut fills = at(5);
    let (one, other) = (fills.begin(), fills.begin());
    assert!(fills.admits(one, Epoch(8), &[key(1)]));
    assert!(!fills.admits(other, Epoch(7), &[key(1)]));
    assert!(fills.admits(other, Epoch(8), &[key(1)]));
}

/// What happens to one key in a memory that is filled and follows the changes.
#[derive(Clone, Debug)]
enum Happening {
    /// The authority changes the key.
    Change,
    /// The node reads the changes up to now, and puts them into memory.
    Ask,
    Put,
    Begin,
    Read,
    Settle,
    Evict,
}

fn any_happening() -> impl Strategy<Value = Happening> {
    use Happening::{Ask, Begin, Change, Evict, Put, Read, Settle};
    prop_oneof![
        2 => Just(Change), 2 => Just(Ask), 2 => Just(Put), 2 => Just(Begin), 2 => Just(Read),
        2 => Just(Settle), 1 => Just(Evict)
    ]
}

proptest! {
    /// The fact in memory is the number of the change that made it. It never is older than what the
    /// node has applied, and never gets older.
    #[test]
    fn memory_is_never_older_than_what_is_applied(
        happenings in prop::collection::vec(any_happening(), 0..80),
    ) {
        let mut fills = at(0);
        let (mut epoch, mut applied) = (Epoch(0), Epoch(0));
        let mut memory = Some(Epoch(0));
        let mut answer: Option<(Epoch, Epoch)> = None;
        let mut readings: Vec<(Stamp, Option<Epoch>)> = Vec::new();
        for happening in happenings {
            let before = memory;
            match happening {
                Happening::Change => epoch.0 += 1,
                Happening::Ask if answer.is_none() => answer = Some((applied, epoch)),
                Happening::Put => {
                    let Some((after, read)) = answer.take() else { continue };
                    if read > after && fills.overwrites(key(1), read, read) {
                        memory = Some(read);
                    }
                    applied = read;
                    fills.applied(read);
                }
                Happening::Begin if readings.len() < 3 => readings.push((fills.begin(), None)),
                Happening::Read => {
                    let unread = readings.iter_mut().find(|(_, read)| read.is_none());
                    if let Some((_, read)) = unread {
                        *read = Some(epoch);
                    }
                }
                Happening::Settle => {
                    let done = readings.iter().rposition(|(_, read)| read.is_some());
                    let Some(place) = done else { continue };
                    let (stamp, read) = readings.remove(place);
                    let read = read.unwrap();
                    if fills.admits(stamp, read, &[key(1)]) {
                        memory = Some(read);
                    }
                    fills.end(stamp);
                }
                Happening::Evict => {
                    memory = None;
                    continue;
                }
                Happening::Ask | Happening::Begin => {}
            }
            prop_assert!(memory.is_none_or(|fact| fact >= applied), "older than what is applied");
            prop_assert!(memory >= before, "older than before");
        }
    }
}
