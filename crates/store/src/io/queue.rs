//! What is to be read, in the order in which it matters.
//!
//! Demand comes first, always: what was only foreseen is begun when nothing that was picked waits or is
//! being read, and then so little at a time that the next demand finds the drive as good as free. It
//! can be taken back until it is begun, or become demand.
//!
//! This is the one structure that threads share, so its locks come from `super::sync`: the
//! standard library's here, and those of a model checker in `tests/queue.rs`, which tries every order
//! in which threads can meet in it.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::sync::{Condvar, Mutex, MutexGuard};

/// How much a read matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits for it, or will soon.
    Demand,
    /// The next layer will probably want it.
    Guess,
    /// It may be wanted one day.
    Warmth,
}

const URGENCIES: [Urgency; 3] = [Urgency::Demand, Urgency::Guess, Urgency::Warmth];
/// Reads at a time of what is not demand: two keep a drive busy, and are soon done.
const UNASKED_MAX: usize = 2;

/// A queue for several threads.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    news: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: [VecDeque<T>; 3], // by urgency
    /// Taken and not done.
    working: [usize; 3], // by urgency
    /// Most that may be working.
    depth: usize,
    is_open: bool,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// This, and [`Queue::done`] when it is done.
    Item(Urgency, T),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    Closed,
}

impl<T> Queue<T> {
    /// An empty queue with room for `capacity` items, of which `depth` are worked on at a time.
    pub(crate) fn new(capacity: usize, depth: usize) -> Self {
        let waiting = URGENCIES.map(|_| VecDeque::with_capacity(capacity));
        let state = State { waiting, working: [0; 3], depth, is_open: true };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }

    /// How many items may be worked on at a time.
    pub(crate) fn set_depth(&self, depth: usize) {
        self.lock().depth = depth;
        self.news.notify_all();
    }

    /// Adds an item.
    pub(crate) fn push(&self, urgency: Urgency, item: T) {
        self.lock().waiting[urgency as usize].push_back(item);
        self.news.notify_one();
    }

    /// What there is to do now.
    pub(crate) fn try_pop(&self) -> Next<T> {
        self.lock().pop()
    }

    /// What there is to do, as soon as there is something; `None` once the queue is closed.
    pub(crate) fn pop(&self) -> Option<(Urgency, T)> {
        let mut state = self.lock();
        loop {
            match state.pop() {
                Next::Item(urgency, item) => return Some((urgency, item)),
                Next::Nothing => {
                    state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Next::Closed => return None,
            }
        }
    }

    /// An item that was taken is done.
    pub(crate) fn done(&self, urgency: Urgency) {
        self.lock().working[urgency as usize] -= 1;
        // It may have been what several others had to wait for.
        self.news.notify_all();
    }

    /// Makes demand of the items that are not, wait, and `are` those; returns how many.
    pub(crate) fn promote(&self, mut are: impl FnMut(&mut T) -> bool) -> usize {
        let mut state = self.lock();
        let [demand, unasked @ ..] = &mut state.waiting;
        let before = demand.len();
        for waiting in unasked {
            for _ in 0..waiting.len() {
                if let Some(mut item) = waiting.pop_front() {
                    if are(&mut item) { &mut *demand } else { &mut *waiting }.push_back(item);
                }
            }
        }
        let promoted = demand.len() - before;
        drop(state);
        if promoted > 0 {
            self.news.notify_all();
        }
        promoted
    }

    /// Takes back an item that is not demand and waits, the first that `is` it.
    pub(crate) fn withdraw(&self, is: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        let [_, unasked @ ..] = &mut state.waiting;
        unasked.iter_mut().find_map(|waiting| {
            let at = waiting.iter().position(&is)?;
            waiting.remove(at)
        })
    }

    /// Drops what waits: nothing will be taken any more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_open = false;
        state.waiting.iter_mut().for_each(VecDeque::clear);
        drop(state);
        self.news.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn pop(&mut self) -> Next<T> {
        if !self.is_open {
            return Next::Closed;
        }
        if self.working.iter().sum::<usize>() >= self.depth {
            return Next::Nothing;
        }
        for urgency in URGENCIES {
            let [demand, unasked @ ..] = &self.working;
            let is_free = *demand == 0 && unasked.iter().sum::<usize>() < UNASKED_MAX;
            if urgency != Urgency::Demand && !is_free {
                break;
            }
            if let Some(item) = self.waiting[urgency as usize].pop_front() {
                self.working[urgency as usize] += 1;
                return Next::Item(urgency, item);
            }
        }
        Next::Nothing
    }
}
