//! Memory that starts at a cache line and is zero: shared between the workers of a pass, or frozen.
#![allow(unsafe_code, reason = "aligned allocation, and parts that workers write side by side")]

use crate::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, Range};

/// Alignment of small memory: a cache line, and a row of a tile.
const LINE: usize = 64;
/// Alignment of large memory, for pages of this size.
const PAGE: usize = 2 << 20;

/// Plain numbers: any bits are a value, zero bits are zero.
pub(crate) trait Number: Copy + Default + Send + Sync + 'static {}
impl Number for u8 {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for i32 {}
impl Number for f32 {}

/// Numbers that several workers read and write in disjoint parts.
#[derive(Debug)]
pub(crate) struct Buffer<T: Number> {
    pointer: *mut T,
    length: usize,
    layout: Option<Layout>,
}

// SAFETY: the numbers are plain, and who may touch which part is stated where parts are taken.
unsafe impl<T: Number> Send for Buffer<T> {}
// SAFETY: as above.
unsafe impl<T: Number> Sync for Buffer<T> {}

impl<T: Number> Default for Buffer<T> {
    fn default() -> Self {
        Self { pointer: std::ptr::NonNull::dangling().as_ptr(), length: 0, layout: None }
    }
}

impl<T: Number> Buffer<T> {
    /// Zeros.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn zeros(length: usize) -> Result<Self> {
        let bytes = length.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize / 2);
        let bytes = bytes.ok_or(Error::Memory(usize::MAX))?;
        if bytes == 0 {
            return Ok(Self::default());
        }
        let align = if bytes >= PAGE { PAGE } else { LINE };
        let layout = Layout::from_size_align(bytes.next_multiple_of(LINE), align);
        let layout = layout.map_err(|_| Error::Memory(bytes))?;
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        if pointer.is_null() {
            return Err(Error::Memory(bytes));
        }
        Ok(Self { pointer: pointer.cast(), length, layout: Some(layout) })
    }

    /// Zeros that are read from end to end: in large pages where the system has them.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn large(length: usize) -> Result<Self> {
        let buffer = Self::zeros(length)?;
        #[cfg(target_os = "linux")]
        if let Some(layout) = buffer.layout.filter(|layout| layout.align() == PAGE) {
            // SAFETY: the range is this buffer's own; the advice changes no contents, and its failure changes nothing.
            unsafe { libc::madvise(buffer.pointer.cast(), layout.size(), libc::MADV_HUGEPAGE) };
        }
        Ok(buffer)
    }

    /// Makes room for `length` numbers; what was there is lost where the room grows.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn ensure(&mut self, length: usize) -> Result<()> {
        if length > self.length {
            *self = Self::zeros(length)?;
        }
        Ok(())
    }

    /// How many numbers.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// All numbers: nobody else has the buffer.
    pub(crate) fn all_mut(&mut self) -> &mut [T] {
        // SAFETY: the pointer is that of `length` initialised numbers (or dangling and aligned with a length of zero).
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.length) }
    }

    /// A part, to read.
    ///
    /// # Safety
    /// Until the reader is done, no worker writes into this part.
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &[T] {
        assert!(range.start <= range.end && range.end <= self.length, "a part outside its buffer");
        // SAFETY: the range lies in the buffer, whose numbers are initialised; the caller keeps writers away.
        unsafe { std::slice::from_raw_parts(self.pointer.add(range.start), range.len()) }
    }

    /// A part, to write.
    ///
    /// # Safety
    /// Until the writer is done, no other worker reads or writes this part, nor does this one through another slice.
    #[allow(clippy::mut_from_ref, reason = "workers write disjoint parts side by side")]
    pub(crate) unsafe fn part_mut(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.length, "a part outside its buffer");
        // SAFETY: the range lies in the buffer, whose numbers are initialised; the caller keeps others away.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(range.start), range.len()) }
    }

    /// The numbers, from now on only read.
    pub(crate) fn freeze(self) -> Frozen<T> {
        Frozen(self)
    }
}

impl<T: Number> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: the pointer came from this allocator with this layout.
            unsafe { dealloc(self.pointer.cast(), layout) };
        }
    }
}

/// Numbers that are only read.
#[derive(Debug)]
pub(crate) struct Frozen<T: Number>(Buffer<T>);

impl<T: Number> Deref for Frozen<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a frozen buffer has no writers.
        unsafe { self.0.part(0..self.0.length) }
    }
}

impl Frozen<u32> {
    /// These words as bytes, lowest first.
    pub(crate) fn bytes(&self, words: Range<usize>) -> &[u8] {
        let words = self.get(words).unwrap_or_default();
        // SAFETY: bytes have no alignment, and every byte of a word is initialised.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
    }
}

/// Asks for the cache line at this place of `numbers`, or behind them; a hint without effect on what is computed.
#[inline(always)]
pub(crate) fn prefetch<T>(numbers: &[T], place: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address is harmless.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(numbers.as_ptr().wrapping_add(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (numbers, place);
}
