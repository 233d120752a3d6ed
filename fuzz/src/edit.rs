//! Damage: what a disk, a network or somebody with bad intentions does to bytes. Owns the kinds of
//! damage; knows nothing of what the bytes mean.

use proptest::collection::vec;
use proptest::prelude::*;

/// Edits made to one input. Few, so that most of it stays valid and the decoder gets far.
const EDITS_MAX: usize = 5;
/// Bytes put in at once.
const INSERTED_BYTES_MAX: usize = 40;

/// One change of some bytes. Places are taken modulo the length of what is there.
#[derive(Clone, Debug)]
pub enum Edit {
    /// One bit becomes the other.
    Flip {
        /// The byte.
        at: usize,
        /// The bit in it, below 8.
        bit: u8,
    },
    /// A number takes the place of what was there: a length, an index, a checksum.
    Number {
        /// Its first byte.
        at: usize,
        /// Bytes it takes, from 1 to 8.
        width: usize,
        /// The highest byte comes first.
        is_big_endian: bool,
        /// Cut to `width`.
        value: u64,
    },
    /// Bytes appear.
    Insert {
        /// Before this one.
        at: usize,
        /// What appears.
        bytes: Vec<u8>,
    },
    /// Bytes disappear.
    Remove {
        /// The first.
        at: usize,
        /// How many.
        len: usize,
    },
    /// A part appears a second time elsewhere.
    Repeat {
        /// Its first byte.
        from: usize,
        /// How many.
        len: usize,
        /// Before this one.
        to: usize,
    },
    /// A part of another valid input takes the place of what was there.
    Splice {
        /// In both.
        at: usize,
        /// How many.
        len: usize,
    },
    /// A part becomes zeros, as a sector that was never written.
    Blank {
        /// Its first byte.
        at: usize,
        /// How many.
        len: usize,
    },
    /// Nothing follows.
    Cut {
        /// The length that stays.
        at: usize,
    },
}

/// Changes bytes; `other` is another valid input, of which parts are taken.
pub fn apply(bytes: &mut Vec<u8>, edits: &[Edit], other: &[u8]) {
    for edit in edits {
        let len_before = bytes.len();
        let place = |at: usize| at % (len_before + 1);
        let part = |at: usize, len: usize| place(at)..place(at).saturating_add(len).min(len_before);
        match edit {
            Edit::Flip { at, bit } => {
                if let Some(byte) = bytes.get_mut(place(*at)) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Edit::Number { at, width, is_big_endian, value } => {
                let mut number = value.to_le_bytes()[..*width].to_vec();
                if *is_big_endian {
                    number.reverse();
                }
                let part = part(*at, *width);
                number.truncate(part.len());
                bytes[part].copy_from_slice(&number);
            }
            Edit::Insert { at, bytes: inserted } => {
                let at = place(*at);
                bytes.splice(at..at, inserted.iter().copied());
            }
            Edit::Remove { at, len } => drop(bytes.drain(part(*at, *len))),
            Edit::Repeat { from, len, to } => {
                let (copy, to) = (bytes[part(*from, *len)].to_vec(), place(*to));
                bytes.splice(to..to, copy);
            }
            Edit::Splice { at, len } => {
                let at = at % (other.len() + 1);
                let taken = &other[at..at.saturating_add(*len).min(other.len())];
                let part = at.min(len_before)..at.saturating_add(taken.len()).min(len_before);
                bytes.splice(part, taken.iter().copied());
            }
            Edit::Blank { at, len } => bytes[part(*at, *len)].fill(0),
            Edit::Cut { at } => bytes.truncate(place(*at)),
        }
    }
}

/// One edit.
fn edit() -> impl Strategy<Value = Edit> {
    let place = || prop_oneof![2 => any::<usize>(), 1 => 0..64_usize];
    let len = || prop_oneof![3 => 1..20_usize, 1 => 1..5000_usize];
    prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Edit::Flip { at, bit }),
        4 => (place(), prop_oneof![Just(1), Just(2), Just(4), Just(8)], any::<bool>(), number())
            .prop_map(|(at, width, is_big_endian, value)| {
                Edit::Number { at, width, is_big_endian, value }
            }),
        2 => (place(), vec(any::<u8>(), 1..INSERTED_BYTES_MAX))
            .prop_map(|(at, bytes)| Edit::Insert { at, bytes }),
        2 => (place(), len()).prop_map(|(at, len)| Edit::Remove { at, len }),
        2 => (place(), len(), place()).prop_map(|(from, len, to)| Edit::Repeat { from, len, to }),
        2 => (place(), len()).prop_map(|(at, len)| Edit::Splice { at, len }),
        1 => (place(), len()).prop_map(|(at, len)| Edit::Blank { at, len }),
        1 => place().prop_map(|at| Edit::Cut { at }),
    ]
}

/// Some edits, or none.
pub fn edits() -> impl Strategy<Value = Vec<Edit>> {
    vec(edit(), 0..=EDITS_MAX)
}

/// Valid bytes that were damaged; now and then they are left as they are, or are noise alone.
pub fn damaged(valid: impl Strategy<Value = Vec<u8>> + 'static) -> impl Strategy<Value = Vec<u8>> {
    let valid = valid.boxed();
    let edited = (valid.clone(), valid, edits()).prop_map(|(mut bytes, other, edits)| {
        apply(&mut bytes, &edits, &other);
        bytes
    });
    prop_oneof![15 => edited, 1 => vec(any::<u8>(), 0..400)]
}

/// Numbers at which something may go over: small ones, powers of two and their neighbours, any.
pub fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..12_u64,
        3 => (0..64_u32, 0..3_u64).prop_map(|(power, more)| (1_u64 << power).wrapping_add(more).wrapping_sub(1)),
        1 => (0..3_u64).prop_map(|less| u64::MAX - less),
        1 => any::<u64>(),
    ]
}

/// As `number`, with a sign.
pub fn signed() -> impl Strategy<Value = i64> {
    (number(), any::<bool>()).prop_map(|(number, is_negated)| match is_negated {
        true => number.cast_signed().wrapping_neg(),
        false => number.cast_signed(),
    })
}

/// Short bytes of few letters, so that two of them are often equal or one begins the other; now and
/// then long ones.
pub fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![3 => prop_oneof![Just(0_u8), Just(1), Just(b'a'), Just(b'b'), Just(0xff)], 1 => any::<u8>()];
    prop_oneof![12 => vec(letter, 0..6), 1 => vec(any::<u8>(), 0..600)]
}
