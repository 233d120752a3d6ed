//! Valid protobuf messages of any shape, made by their descriptors. Owns how a field's value is chosen;
//! knows no message by name.

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value,
};

use crate::number;

/// Choices that a message is made of; when they are used up, what is left is absent.
const CHOICES_MAX: usize = 160;
const DEPTH_MAX: usize = 6;
/// Letters of texts and bytes: keys that are often equal, begin each other, or hold what is special.
const LETTERS: [u8; 6] = *b"ab\0\xff1/";

/// The messages of one set of descriptors.
#[derive(Clone, Debug)]
pub struct Messages(DescriptorPool);

impl Messages {
    /// From an encoded `FileDescriptorSet`.
    ///
    /// # Panics
    /// It is none.
    pub fn new(descriptor_set: &[u8]) -> Self {
        Self(DescriptorPool::decode(descriptor_set).expect("a set of descriptors"))
    }

    /// Valid messages of this full name, encoded.
    ///
    /// # Panics
    /// There is no such message.
    pub fn encoded(&self, name: &str) -> impl Strategy<Value = Vec<u8>> + Clone + use<> {
        let descriptor = self.0.get_message_by_name(name);
        let descriptor = descriptor.unwrap_or_else(|| panic!("no message is called {name}"));
        choices().prop_map(move |choices| {
            Choices(choices.iter()).message(&descriptor, 0).encode_to_vec()
        })
    }
}

fn choices() -> impl Strategy<Value = Vec<u64>> + Clone {
    vec(number(), 0..CHOICES_MAX).boxed()
}

struct Choices<'a>(std::slice::Iter<'a, u64>);

impl Choices<'_> {
    fn next(&mut self) -> u64 {
        self.0.next().copied().unwrap_or(0)
    }

    fn message(&mut self, descriptor: &MessageDescriptor, depth: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        for field in descriptor.fields() {
            if self.0.len() == 0 {
                break;
            }
            if field.is_map() || depth == DEPTH_MAX {
                continue;
            }
            if field.is_list() {
                let values = (0..self.next() % 4).map(|_| self.value(&field, depth)).collect();
                message.set_field(&field, Value::List(values));
            } else if !self.next().is_multiple_of(3) {
                let value = self.value(&field, depth);
                message.set_field(&field, value);
            }
        }
        message
    }

    fn value(&mut self, field: &FieldDescriptor, depth: usize) -> Value {
        match field.kind() {
            Kind::Message(descriptor) => Value::Message(self.message(&descriptor, depth + 1)),
            // Unknown ones as well.
            Kind::Enum(_) => Value::EnumNumber((self.next() % 30) as i32 - 1),
            Kind::Bool => Value::Bool(self.next() % 2 == 1),
            Kind::String => Value::String(
                self.bytes().into_iter().map(|byte| char::from(byte & 0x7f)).collect(),
            ),
            Kind::Bytes => Value::Bytes(self.bytes().into()),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(self.next() as i32),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(self.next() as u32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(self.next().cast_signed()),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.next()),
            Kind::Double => Value::F64(f64::from_bits(self.next())),
            Kind::Float => Value::F32(f32::from_bits(self.next() as u32)),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..self.next() % 5)
            .map(|_| LETTERS[(self.next() % LETTERS.len() as u64) as usize])
            .collect()
    }
}
