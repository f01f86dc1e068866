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
