//! The queue between a cache and its readers, under a model checker: every order in which its
//! threads can meet, up to the bound that each model names.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

mod sync {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard};
}
#[allow(dead_code, unreachable_pub)]
#[path = "../src/io/queue.rs"]
mod queue;

use queue::{Next, Priority, Queue};

/// Tries all interleavings with up to three preemptions of a thread, which finds nearly every fault
/// that there is (Musuvathi and Qadeer 2007), in seconds.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Takes and finishes items until the queue is closed; returns them.
fn work(queue: &Queue<u32>) -> Vec<(Priority, u32)> {
    let mut taken = Vec::new();
    while let Some((priority, item)) = queue.pop() {
        queue.done(priority);
        taken.push((priority, item));
    }
    taken
}

#[test]
fn no_item_is_lost_or_taken_twice_and_no_worker_sleeps_for_ever() {
    check(|| {
        let queue = Arc::new(Queue::new(4, 1));
        let workers = [(); 2].map(|()| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || work(&queue))
        });
        queue.push(Priority::Background, 3);
        queue.push(Priority::Demand, 1);
        queue.push(Priority::Prefetch, 2);
        let withdrawn = queue.withdraw(|&item| item == 2);
        queue.close();
        let mut taken: Vec<u32> = Vec::new();
        for worker in workers {
            taken.extend(worker.join().unwrap().into_iter().map(|(_, item)| item));
        }
        taken.extend(withdrawn);
        taken.sort_unstable();
        // What waits when the queue is closed is dropped; nothing comes twice.
        assert!(taken.windows(2).all(|pair| pair[0] < pair[1]), "{taken:?}");
    });
}

#[test]
fn what_was_foreseen_is_withdrawn_or_read_and_never_both() {
    check(|| {
        let queue = Arc::new(Queue::new(2, 2));
        queue.push(Priority::Prefetch, 7);
        let of_worker = Arc::clone(&queue);
        let worker = thread::spawn(move || match of_worker.try_pop() {
            Next::Item(priority, item) => {
                of_worker.done(priority);
                Some((priority, item))
            }
            _ => None,
        });
        let promoted = queue.promote(|_| true);
        let withdrawn = queue.withdraw(|_| true);
        assert!(withdrawn.is_none() || promoted == 0, "demand is not taken back");
        let taken = worker.join().unwrap();
        let left = match queue.try_pop() {
            Next::Item(_, item) => Some(item),
            _ => None,
        };
        let places = [taken.map(|(_, item)| item), withdrawn, left];
        assert_eq!(places.iter().flatten().count(), 1, "{places:?}");
        if promoted > 0
            && let Some((priority, _)) = taken
        {
            assert_eq!(priority, Priority::Demand, "it was demand before it was taken");
        }
    });
}

#[test]
fn demand_that_is_being_read_keeps_the_drive_to_itself() {
    check(|| {
        let queue = Arc::new(Queue::new(2, 8));
        queue.push(Priority::Demand, 1);
        queue.push(Priority::Prefetch, 2);
        let of_worker = Arc::clone(&queue);
        let worker = thread::spawn(move || {
            let mut order = Vec::new();
            while order.len() < 2 {
                let Some((priority, item)) = of_worker.pop() else { break };
                if item == 2 {
                    assert_eq!(order, [1], "demand was done before a prefetch was begun");
                }
                of_worker.done(priority);
                order.push(item);
            }
            order
        });
        assert_eq!(worker.join().unwrap(), [1, 2]);
        assert_eq!(queue.try_pop(), Next::Nothing);
    });
}

#[test]
fn a_worker_that_waits_for_room_is_woken_by_the_one_that_is_done() {
    check(|| {
        let queue = Arc::new(Queue::new(2, 1));
        queue.push(Priority::Demand, 1);
        queue.push(Priority::Demand, 2);
        let workers = [(); 2].map(|()| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let taken = queue.pop();
                let (priority, item) = taken.unwrap();
                queue.done(priority);
                item
            })
        });
        let mut items = workers.map(|worker| worker.join().unwrap());
        items.sort_unstable();
        assert_eq!(items, [1, 2]);
    });
}
