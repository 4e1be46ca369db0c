//! Which things can happen in a state, and what must hold in every one.

use keyward_core::lease::Event;
use stateright::{Model, Property};

use crate::process::{Doing, Fact, Flight};
use crate::properties;
use crate::state::State;
use crate::world::{Flaw, LEAP, World};
use crate::writer::Revocation;

/// One thing that happens. `usize` is the place of a node or the number of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes; whoever takes no step is paused, partitioned or slow.
    Pass,
    Leap,
    Begin(usize),
    Commit(usize),
    Abort(usize),
    Raise(usize),
    AskAnother(usize),
    Confirm(usize),
    Answer(usize),
    LookEarly,
    LookAtRegister,
    Tick(usize),
    Perform(usize),
    CommitRenewal(usize),
    Deliver(usize),
    Finish(usize),
    Fail(usize),
    Mistake(usize),
    Hint(usize),
    Crash(usize),
    Stop(usize),
    Acknowledge(usize),
    Leave(usize),
    PerformStray,
    BeginFill(usize, usize),
    ReadFill(usize, usize),
    EndFill(usize, usize),
    Evict(usize, usize),
    Sample(usize),
    Send(usize, usize),
    Look,
    Replicate,
    Promote,
    Restore,
    JanitorLooks,
    JanitorDeletes,
}

impl State {
    fn steps_of_time(&self, world: &World, steps: &mut Vec<Step>) {
        if self.elapsed(world) < world.horizon {
            steps.push(Step::Pass);
        }
        if self.left.leaps > 0 {
            steps.push(Step::Leap);
        }
        if world.leaps > 0 {
            steps.push(Step::JanitorLooks);
            if self.janitor.chosen.is_some() {
                steps.push(Step::JanitorDeletes);
            }
        }
        if self.left.promotions > 0 {
            steps.extend([Step::Replicate, Step::Promote, Step::Restore]);
        }
    }

    fn steps_of_writer(&self, world: &World, steps: &mut Vec<Step>) {
        let mut waits = false;
        for key in Self::keys(world) {
            // keys are alike: the first one is revoked first
            let in_turn = key == 0 || self.writer.revocations[0] != Revocation::Wanted;
            match &self.writer.revocations[key] {
                Revocation::Wanted if in_turn && self.lock_is_free(world) => {
                    steps.push(Step::Begin(key));
                }
                Revocation::Open { .. } => {
                    steps.push(Step::Commit(key));
                    if self.left.aborts > 0 {
                        steps.push(Step::Abort(key));
                    }
                }
                Revocation::Committed { .. } => steps.push(Step::Raise(key)),
                Revocation::Waiting(_) => {
                    waits = true;
                    if self.writer.is_over(key, self.writer_ns()) {
                        steps.push(Step::Answer(key));
                    }
                    if world.together && self.is_applied_here(key) {
                        steps.push(Step::Confirm(key));
                    }
                    if self.left.polls > 0 && self.revoked_at(key).is_some() {
                        steps.push(Step::AskAnother(key));
                    }
                }
                Revocation::Wanted | Revocation::Effective(_) | Revocation::Undone => {}
            }
        }
        let done = |it: &Revocation| matches!(it, Revocation::Effective(_) | Revocation::Undone);
        let to_do = Self::keys(world).any(|key| !done(&self.writer.revocations[key]));
        if waits || (to_do && world.watches) {
            steps.push(Step::LookAtRegister);
        }
        if world.has(Flaw::WitnessBeforeReading) && self.writer.early_ns.is_none() {
            steps.push(Step::LookEarly);
        }
    }

    fn steps_of_node(&self, world: &World, place: usize, steps: &mut Vec<Step>) {
        if !self.is_in_turn(world, place) {
            return;
        }
        let process = &self.processes[place];
        let mut fails = self.left.failures > 0;
        match process.doing {
            Doing::Nothing => {
                fails = false;
                if self.clock_ns(place) >= process.protocol.wake_at_ns() {
                    steps.push(Step::Tick(place));
                }
            }
            Doing::Asking(Flight::Sent(ask)) => {
                if !ask.renew || self.lock_is_shared(world) {
                    steps.push(Step::Perform(place));
                }
                if process.late.is_some() {
                    steps.push(Step::Mistake(place));
                }
            }
            Doing::Asking(Flight::Open(..)) => steps.push(Step::CommitRenewal(place)),
            Doing::Asking(Flight::Answered(..)) => steps.push(Step::Deliver(place)),
            Doing::Asking(Flight::Lost(_)) => fails = true,
            Doing::Applying(_) | Doing::Loaded(_) => {
                fails = false;
                steps.push(Step::Finish(place));
            }
            Doing::Loading => steps.push(Step::Finish(place)),
        }
        if fails {
            steps.push(Step::Fail(place));
        }
        let unread = process.protocol.applied().is_some_and(|it| it < self.authority.epoch());
        if self.left.hints > 0 && unread {
            steps.push(Step::Hint(place));
        }
        if self.left.crashes > 0 {
            steps.push(Step::Crash(place));
        }
        if self.left.stops > 0 && !process.protocol.is_stopped() {
            steps.push(Step::Stop(place));
        }
    }

    fn steps_of_fills(&self, world: &World, place: usize, steps: &mut Vec<Step>) {
        let process = &self.processes[place];
        if process.protocol.applied().is_none() {
            return;
        }
        for key in Self::keys(world) {
            if self.left.fills > 0 && process.memory[key] == Fact::Absent {
                steps.push(Step::BeginFill(place, key));
            }
            if self.left.evictions > 0 && process.memory[key] != Fact::Absent {
                steps.push(Step::Evict(place, key));
            }
        }
        for (number, fill) in process.filling.iter().enumerate() {
            steps.push(match fill.found {
                None => Step::ReadFill(place, number),
                Some(_) => Step::EndFill(place, number),
            });
        }
    }

    fn steps_of_requests(&self, world: &World, steps: &mut Vec<Step>) {
        let may_send = world.strict == 0 || self.left.strict > 0;
        for place in 0..self.processes.len() {
            for key in Self::keys(world).filter(|key| may_send && self.writer.promised[*key]) {
                steps.push(Step::Send(place, key));
            }
            if world.has(Flaw::ClockBeforeRequest) && self.request.is_none() {
                steps.push(Step::Sample(place));
            }
        }
        let Some(request) = &self.request else { return };
        let memory = request.key.map(|key| self.processes[request.place].memory[key]);
        // what is not in memory is waited for
        let readable = memory.is_some_and(|fact| fact != Fact::Absent);
        if readable && request.barrier.is_none() {
            steps.push(Step::Look);
        }
    }

    fn take_step(&mut self, world: &World, step: Step) {
        let (now, now_ns) = (self.now, self.writer_ns());
        match step {
            Step::Pass => self.now += 1,
            Step::Leap => {
                self.now += LEAP;
                self.left.leaps -= 1;
            }
            Step::Begin(key) => self.writer.begin(world, &mut self.authority, key, now),
            Step::Commit(key) => self.writer.commit(world, &mut self.authority, key, now),
            Step::Abort(key) => {
                self.writer.revocations[key] = Revocation::Undone;
                self.left.aborts -= 1;
            }
            Step::Raise(key) => self.writer.raise(world, key, now_ns),
            Step::AskAnother(key) => {
                self.writer.ask_another(world, &self.authority, key, now, now_ns);
                self.left.polls -= 1;
            }
            Step::Answer(key) => self.writer.answer(&self.authority, key, now_ns),
            Step::LookEarly => self.writer.early_ns = Some(now_ns),
            Step::LookAtRegister => self.writer.look(world, &self.authority, now, now_ns),
            Step::JanitorLooks => {
                let now_ns = self.janitor_ns();
                self.janitor.look(world, &self.authority, now, now_ns);
            }
            Step::JanitorDeletes => self.janitor.delete(world, &mut self.authority),
            Step::Replicate => self.standby = Some(self.authority.clone()),
            Step::Promote | Step::Restore => {
                self.left.promotions -= 1;
                if step == Step::Promote { self.promote(world) } else { self.restore(world) }
            }
            Step::Sample(place) => self.sample(place),
            Step::Send(place, key) => self.send(world, place, key),
            Step::Look => self.look(world),
            Step::PerformStray => self.perform_stray(world),
            Step::Acknowledge(number) => {
                let ack = self.acknowledged.remove(number);
                self.authority.acknowledge(world, ack);
            }
            Step::Leave(number) => {
                let node = self.leaving.remove(number);
                self.authority.forget(node);
            }
            _ => self.take_node_step(world, step),
        }
    }

    fn take_node_step(&mut self, world: &World, step: Step) {
        match step {
            Step::Tick(place) => self.step(world, place, Event::Tick),
            Step::Perform(place) => self.perform(world, place),
            Step::CommitRenewal(place) => self.commit_renewal(world, place),
            Step::Deliver(place) => self.deliver(world, place),
            Step::Finish(place) => self.finish(world, place),
            Step::Fail(place) => {
                self.left.failures = self.left.failures.saturating_sub(1);
                self.fail(world, place);
            }
            Step::Mistake(place) => self.mistake(place),
            Step::Hint(place) => {
                self.left.hints -= 1;
                let newest = self.authority.epoch();
                self.step(world, place, Event::Heard(Some(newest)));
            }
            Step::Crash(place) => {
                self.left.crashes -= 1;
                self.crash(world, place);
            }
            Step::Stop(place) => {
                self.left.stops -= 1;
                self.step(world, place, Event::Stop);
            }
            Step::BeginFill(place, key) => {
                self.left.fills -= 1;
                self.processes[place].begin_fill(key);
            }
            Step::ReadFill(place, number) => {
                let key = self.processes[place].filling[number].key;
                let fact = match self.authority.revocation(key) {
                    Some(_) => Fact::Revoked,
                    None => Fact::Valid,
                };
                let found = Some((self.authority.epoch(), fact));
                self.processes[place].filling[number].found = found;
            }
            Step::EndFill(place, number) => {
                self.processes[place].end_fill(world, number);
            }
            Step::Evict(place, key) => {
                self.left.evictions -= 1;
                self.processes[place].memory[key] = Fact::Absent;
            }
            Step::Confirm(key) => self.confirm(key),
            _ => {}
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<Step>) {
        if state.fault.is_some() {
            return;
        }
        state.steps_of_time(self, steps);
        state.steps_of_writer(self, steps);
        for place in 0..state.processes.len() {
            state.steps_of_node(self, place, steps);
            state.steps_of_fills(self, place, steps);
        }
        state.steps_of_requests(self, steps);
        steps.extend((0..state.acknowledged.len()).map(Step::Acknowledge));
        steps.extend((0..state.leaving.len()).map(Step::Leave));
        if state.stray.is_some() && state.lock_is_shared(self) {
            steps.push(Step::PerformStray);
        }
    }

    fn next_state(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        state.take_step(self, step);
        state.tidy(self);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = properties::always();
        let reached = properties::sometimes();
        properties.extend(reached.into_iter().filter(|it| self.reaches.contains(&it.name)));
        properties
    }
}
