//! The queue of reads, by priority.
//!
//! Demand always comes first. Speculative reads start only when no demand waits or is being read,
//! and only a few at a time, so that the next demand finds the drive nearly idle. Until they start
//! they can be cancelled, or promoted to demand.
//!
//! This is the only structure that threads share. Its locks come from `super::sync`: the standard
//! library's here, and those of a model checker in `tests/queue.rs`, which tries every order in
//! which threads can reach it.

use std::collections::VecDeque;
use std::sync::PoisonError;

use super::sync::{Condvar, Mutex, MutexGuard};

/// The priority of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Priority {
    /// It was chosen by a router: computing waits for it, or soon will.
    Demand,
    /// The next layer will probably need it.
    Prefetch,
    /// It was popular in earlier runs.
    Background,
}

const PRIORITIES: [Priority; 3] = [Priority::Demand, Priority::Prefetch, Priority::Background];
/// Speculative reads at a time: two keep a drive busy, and finish soon.
const SPECULATIVE_MAX: usize = 2;

/// A queue for several threads.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    news: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: [VecDeque<T>; 3], // by priority
    /// Started and not done.
    working: [usize; 3], // by priority
    /// The most that may be working.
    depth: usize,
    is_open: bool,
}

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<T> {
    /// This item; call [`Queue::done`] afterwards.
    Item(Priority, T),
    /// Nothing for now.
    Nothing,
    /// The queue is closed.
    Closed,
}

impl<T> Queue<T> {
    /// An empty queue with space for `capacity` items, of which `depth` are worked on at a time.
    pub(crate) fn new(capacity: usize, depth: usize) -> Self {
        let waiting = PRIORITIES.map(|_| VecDeque::with_capacity(capacity));
        let state = State { waiting, working: [0; 3], depth, is_open: true };
        Self { state: Mutex::new(state), news: Condvar::new() }
    }

    /// Sets how many items are worked on at a time.
    pub(crate) fn set_depth(&self, depth: usize) {
        self.lock().depth = depth;
        self.news.notify_all();
    }

    /// Adds an item.
    pub(crate) fn push(&self, priority: Priority, item: T) {
        self.lock().waiting[priority as usize].push_back(item);
        self.news.notify_one();
    }

    /// The next item, without waiting.
    pub(crate) fn try_pop(&self) -> Next<T> {
        self.lock().pop()
    }

    /// The next item, waiting for one; `None` once the queue is closed.
    pub(crate) fn pop(&self) -> Option<(Priority, T)> {
        let mut state = self.lock();
        loop {
            match state.pop() {
                Next::Item(priority, item) => return Some((priority, item)),
                Next::Nothing => {
                    state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Next::Closed => return None,
            }
        }
    }

    /// Marks an item as done.
    pub(crate) fn done(&self, priority: Priority) {
        self.lock().working[priority as usize] -= 1;
        // Several items may have waited for it.
        self.news.notify_all();
    }

    /// Promotes waiting speculative items that match to demand; returns how many.
    pub(crate) fn promote(&self, mut matches: impl FnMut(&mut T) -> bool) -> usize {
        let mut state = self.lock();
        let [demand, speculative @ ..] = &mut state.waiting;
        let before = demand.len();
        for waiting in speculative {
            for _ in 0..waiting.len() {
                if let Some(mut item) = waiting.pop_front() {
                    if matches(&mut item) { &mut *demand } else { &mut *waiting }.push_back(item);
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

    /// Removes the first waiting speculative item that matches.
    pub(crate) fn withdraw(&self, matches: impl Fn(&T) -> bool) -> Option<T> {
        let mut state = self.lock();
        let [_, speculative @ ..] = &mut state.waiting;
        speculative.iter_mut().find_map(|waiting| {
            let at = waiting.iter().position(&matches)?;
            waiting.remove(at)
        })
    }

    /// Closes the queue and drops waiting items.
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
        for priority in PRIORITIES {
            let [demand, speculative @ ..] = &self.working;
            let is_free = *demand == 0 && speculative.iter().sum::<usize>() < SPECULATIVE_MAX;
            if priority != Priority::Demand && !is_free {
                break;
            }
            if let Some(item) = self.waiting[priority as usize].pop_front() {
                self.working[priority as usize] += 1;
                return Next::Item(priority, item);
            }
        }
        Next::Nothing
    }
}
