//! Things in numbered slots, so that structures can name one another by four bytes. A freed slot
//! is used again: whoever frees one must first have removed every mention of it.

use std::ops::{Index, IndexMut};

/// A slot's number.
pub(super) type Slot = u32;

/// No slot.
pub(super) const NONE: Slot = Slot::MAX;

#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Slab<T> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    pub(super) fn insert(&mut self, value: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(value);
            return slot;
        }
        assert!(self.slots.len() < NONE as usize, "fewer things than numbers for them");
        // Growing by a quarter keeps the unused part small; doubling would waste half of it.
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact((self.slots.len() / 4).max(16));
        }
        self.slots.push(Some(value));
        (self.slots.len() - 1) as Slot
    }

    pub(super) fn remove(&mut self, slot: Slot) -> T {
        let value = self.slots[slot as usize].take().expect("the slot is in use");
        self.free.push(slot);
        value
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Slots in use, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        let numbered = self.slots.iter().enumerate();
        numbered.filter_map(|(slot, value)| Some((slot as Slot, value.as_ref()?)))
    }

    /// Bytes on the heap, without what the values own.
    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<T>>() + self.free.capacity() * size_of::<Slot>()
    }
}

impl<T> Index<Slot> for Slab<T> {
    type Output = T;
    fn index(&self, slot: Slot) -> &T {
        self.slots[slot as usize].as_ref().expect("the slot is in use")
    }
}

impl<T> IndexMut<Slot> for Slab<T> {
    fn index_mut(&mut self, slot: Slot) -> &mut T {
        self.slots[slot as usize].as_mut().expect("the slot is in use")
    }
}
