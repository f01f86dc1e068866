//! Places for answers, as llama-server counts them: which texts they hold, so that these can be
//! saved, restored and erased.
//!
//! Here sequences share the KV cache and find each other's prefixes, so a slot is only a name for
//! the text of the last request that ran in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{ApiError, ApiResult};

/// All slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: Mutex<Vec<Slot>>,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    /// What the last request left.
    tokens: Vec<u32>,
    /// Requests in it now.
    users: usize,
}

impl Slots {
    pub(crate) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::new(vec![Slot::default(); count.max(1)]) })
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the slot that a request wants, or a free one; the first if there is none.
    ///
    /// # Errors
    /// 400 for a slot that does not exist.
    pub(crate) fn take(
        self: &Arc<Self>,
        wanted: Option<usize>,
        prompt: &[u32],
    ) -> ApiResult<Place> {
        let mut slots = self.slots();
        if let Some(id) = wanted {
            check(&slots, id)?;
        }
        let free = || slots.iter().position(|slot| slot.users == 0).unwrap_or(0);
        let id = wanted.unwrap_or_else(free);
        slots[id].users += 1;
        Ok(Place { slots: Arc::clone(self), id, tokens: prompt.to_vec() })
    }

    /// What a slot holds.
    ///
    /// # Errors
    /// 400 for a slot that does not exist.
    pub(crate) fn tokens(&self, id: usize) -> ApiResult<Vec<u32>> {
        let slots = self.slots();
        check(&slots, id)?;
        Ok(slots[id].tokens.clone())
    }

    /// Says what a slot holds; returns what it held.
    pub(crate) fn replace(&self, id: usize, tokens: Vec<u32>) -> Vec<u32> {
        self.slots()
            .get_mut(id)
            .map(|slot| std::mem::replace(&mut slot.tokens, tokens))
            .unwrap_or_default()
    }
}

fn check(slots: &[Slot], id: usize) -> ApiResult<()> {
    if id < slots.len() {
        return Ok(());
    }
    let count = slots.len();
    Err(ApiError::field("id_slot", format!("there is no slot {id}, but {count} from 0 on")))
}

/// A slot that a request is in; its text is what the slot holds afterwards.
pub(crate) struct Place {
    slots: Arc<Slots>,
    pub(crate) id: usize,
    tokens: Vec<u32>,
}

impl Place {
    /// More tokens were generated.
    pub(crate) fn extend(&mut self, tokens: impl Iterator<Item = u32>) {
        self.tokens.extend(tokens);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut slots = self.slots.slots();
        let slot = &mut slots[self.id];
        slot.users -= 1;
        slot.tokens = std::mem::take(&mut self.tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_take_free_slots_and_leave_their_text() {
        let slots = Slots::new(2);
        let mut first = slots.take(None, &[1, 2]).unwrap();
        let second = slots.take(None, &[3]).unwrap();
        assert_eq!((first.id, second.id, slots.take(None, &[]).unwrap().id), (0, 1, 0));
        first.extend([5].into_iter());
        drop((first, second));
        assert_eq!((slots.tokens(0).unwrap(), slots.tokens(1).unwrap()), (vec![1, 2, 5], vec![3]));
        assert_eq!(slots.take(Some(1), &[]).unwrap().id, 1);
        assert!(slots.take(Some(2), &[]).is_err() && slots.tokens(2).is_err());
        assert_eq!(slots.replace(0, Vec::new()), [1, 2, 5]);
    }
}
