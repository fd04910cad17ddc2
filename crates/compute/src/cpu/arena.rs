//! Aligned memory: single allocations, and the stack of a step.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::{Buffer, DType, Error, Mark, Region, Result};

/// Every allocation starts at a multiple of it: a cache line, the widest vector.
pub(crate) const ALIGN: usize = 64;

/// One zeroed allocation. Pages that are never touched cost nothing.
pub(crate) struct Memory {
    allocation: *mut u8,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: the memory is owned, like a Vec's.
unsafe impl Send for Memory {}
// SAFETY: shared access hands out pointers only.
unsafe impl Sync for Memory {}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        if bytes == 0 {
            let start = std::ptr::without_provenance_mut(ALIGN);
            return Memory { allocation: start, start, bytes };
        }
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not 0.
        let allocation = unsafe { alloc_zeroed(layout) };
        if allocation.is_null() {
            handle_alloc_error(layout);
        }
        // Aligned here, because for an aligned layout the standard library would write the zeros.
        let start = allocation.map_addr(|address| address.next_multiple_of(ALIGN));
        Memory { allocation, start, bytes }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The start, from which `bytes` may be read and written by one owner at a time.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.start
    }

    fn layout(bytes: usize) -> Layout {
        let layout = Layout::from_size_align(bytes + ALIGN, align_of::<usize>());
        layout.expect("the size of an allocation fits isize")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: allocated in `new` with the same layout.
            unsafe { dealloc(self.allocation, Self::layout(self.bytes)) };
        }
    }
}

/// The stack of a step.
pub(crate) struct Arena {
    memory: Memory,
    height: usize,
}

impl Arena {
    pub(crate) fn new() -> Self {
        Arena { memory: Memory::new(0), height: 0 }
    }

    pub(crate) fn reserve(&mut self, bytes: usize) {
        assert_eq!(self.height, 0, "the stack is empty when its size is set");
        // The old one goes first: two at once might not fit.
        self.memory = Memory::new(0);
        self.memory = Memory::new(bytes.next_multiple_of(ALIGN));
    }

    pub(crate) fn reserved(&self) -> usize {
        self.memory.bytes()
    }

    pub(crate) fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        let offset = self.height;
        let needed = (offset + len * dtype.size()).next_multiple_of(ALIGN);
        if needed > self.memory.bytes() {
            let reserved = self.memory.bytes();
            return Err(Error::OutOfMemory { device: "cpu", needed, reserved });
        }
        self.height = needed;
        Ok(Buffer { region: Region::Stack, offset, len, dtype })
    }

    pub(crate) fn mark(&self) -> Mark {
        Mark(self.height)
    }

    pub(crate) fn release(&mut self, mark: Mark) {
        assert!(mark.0 <= self.height, "a mark lies below the top of the stack");
        self.height = mark.0;
    }

    /// The start of a buffer of the stack.
    pub(crate) fn pointer(&self, buffer: Buffer) -> *mut u8 {
        let end = buffer.offset + buffer.len * buffer.dtype.size();
        assert!(end <= self.height, "a buffer of the stack is used before its release");
        // SAFETY: the buffer lies inside the memory.
        unsafe { self.memory.as_ptr().add(buffer.offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_goes_up_and_down() {
        let mut arena = Arena::new();
        arena.reserve(256);
        let a = arena.alloc(3, DType::F32).unwrap();
        let mark = arena.mark();
        let b = arena.alloc(10, DType::Bf16).unwrap();
        assert_eq!((a.offset, b.offset), (0, 64));
        let error = arena.alloc(64, DType::F32).unwrap_err().to_string();
        assert_eq!(error, "out of cpu memory: 384 bytes needed, 256 reserved");
        arena.release(mark);
        assert_eq!(arena.alloc(1, DType::U32).unwrap().offset, 64);
        assert_eq!(arena.pointer(b) as usize % ALIGN, 0);
    }
}
