//! Memory that survives from token to token, so that decoding allocates nothing.

/// The first `len` numbers of a buffer that grows when needed and never shrinks. Their values are
/// whatever they were: the caller overwrites them all.
pub(crate) fn ensure_len(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if buffer.len() < len {
        resize(buffer, len);
    }
    &mut buffer[..len]
}

/// Makes a buffer exactly `len` numbers long, and takes no more memory than that needs.
pub(crate) fn resize<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    buffer.reserve_exact(len.saturating_sub(buffer.len()));
    buffer.resize(len, T::default());
}

/// The same list, empty, for elements of another lifetime.
///
/// Work lists borrow weights and inputs for the length of one call, but their memory is kept.
/// Collecting a vector's own iterator reuses its allocation when the element types have one layout.
pub(crate) fn recycle<T, U>(mut list: Vec<T>) -> Vec<U> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

/// Every row of a batch, each with weight 1.
#[derive(Debug, Default)]
pub(crate) struct AllRows {
    indices: Vec<u32>,
    ones: Vec<f32>,
}

impl AllRows {
    /// The rows `0..count` and their weights.
    pub(crate) fn of(&mut self, count: usize) -> (&[u32], &[f32]) {
        let len = self.indices.len();
        if len < count {
            self.indices.extend(len as u32..count as u32);
            self.ones.resize(count, 1.0);
        }
        (&self.indices[..count], &self.ones[..count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_list_keeps_its_memory() {
        let mut list: Vec<&str> = Vec::with_capacity(10);
        let memory = list.as_ptr();
        list.push("a");
        let list: Vec<&'static str> = recycle(list);
        assert!(list.is_empty() && list.capacity() == 10 && list.as_ptr() == memory);
    }
}
