//! Buffers that begin on a cache line, for vector loads.

/// A growable buffer of plain numbers, aligned to 64 bytes; new elements are zero.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line>,
    len: usize,
    kind: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Numbers for which every bit pattern, zero included, is a value.
///
/// # Safety
/// Only for types without padding or invalid bit patterns, of alignment at most 64.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for u8 {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for i8 {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for u16 {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for i16 {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for i32 {}
// SAFETY: integers and floats have no invalid bit patterns.
unsafe impl Plain for f32 {}

impl<T: Plain> Aligned<T> {
    /// Makes room for exactly `len` elements, keeping what fits; never gives memory back.
    pub(crate) fn resize(&mut self, len: usize) -> &mut [T] {
        let lines = len.div_ceil(64 / size_of::<T>()); // no product that could overflow
        if lines > self.lines.len() {
            // No more than that: the planner counts what buffers take.
            self.lines.reserve_exact(lines - self.lines.len());
            self.lines.resize(lines, Line([0; 64]));
        }
        self.len = len;
        self
    }

    /// All elements, for several workers. Between two of their writes, elements may also be read
    /// through the buffer itself: the address is the buffer's own, not that of a slice which such
    /// reads would end.
    pub(crate) fn shared(&mut self) -> Shared<'_, T> {
        let start = self.lines.as_mut_ptr().cast();
        Shared { start, len: self.len, life: std::marker::PhantomData }
    }
}

impl<T: Plain> std::ops::Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `resize` keeps at least `len` elements initialized, and `T` is `Plain`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Plain> std::ops::DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// The same list, empty, for elements of another lifetime.
///
/// Work lists borrow weights and inputs for the length of one call, but their memory is kept.
/// Collecting a vector's own iterator reuses its allocation when the element types have one layout.
pub fn recycle<T, U>(mut list: Vec<T>) -> Vec<U> {
    list.clear();
    list.into_iter().map(|_| unreachable!("the list is empty")).collect()
}

/// A mutable slice that several workers write, each its own elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    life: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: access goes through `slice`, whose caller promises disjoint ranges.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: access goes through `slice`, whose caller promises disjoint ranges.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), life: std::marker::PhantomData }
    }

    /// Elements `at..at + len`.
    ///
    /// # Safety
    /// No two slices that live at the same time may overlap.
    pub(crate) unsafe fn slice(&self, at: usize, len: usize) -> &'a mut [T] {
        assert!(at <= self.len && len <= self.len - at, "{at}+{len} of {}", self.len);
        // SAFETY: in bounds by the line above; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }

    /// Elements `at..at + len`, to read.
    ///
    /// # Safety
    /// No worker writes them meanwhile.
    pub(crate) unsafe fn view(&self, at: usize, len: usize) -> &'a [T] {
        assert!(at <= self.len && len <= self.len - at, "{at}+{len} of {}", self.len);
        // SAFETY: in bounds by the line above; not written by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.add(at), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "capacity overflow")]
    fn more_elements_than_memory_could_have_are_refused() {
        Aligned::<f32>::default().resize(1 << 62);
    }

    #[test]
    fn an_emptied_list_keeps_its_memory() {
        let mut list: Vec<&str> = Vec::with_capacity(10);
        let memory = list.as_ptr();
        list.push("a");
        let list: Vec<&'static str> = recycle(list);
        assert!(list.is_empty() && list.capacity() == 10 && list.as_ptr() == memory);
    }
}
