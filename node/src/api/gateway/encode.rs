//! From a message to JSON: names as in the .proto file, 64-bit numbers as texts, bytes in base64,
//! enums by name, and nothing of what has its default.

use prost_reflect::{DynamicMessage, MessageDescriptor, SerializeOptions};

/// Appends the JSON of an encoded message.
///
/// # Errors
/// It is no such message, which would be a slip of this node.
pub(super) fn append(
    descriptor: &MessageDescriptor,
    message: &[u8],
    text: &mut Vec<u8>,
) -> Result<(), String> {
    let message = DynamicMessage::decode(descriptor.clone(), message);
    let message = message.map_err(|error| error.to_string())?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true)
        .use_enum_numbers(false)
        .skip_default_fields(true);
    let mut serializer = serde_json::Serializer::new(text);
    message.serialize_with_options(&mut serializer, &options).map_err(|error| error.to_string())
}
