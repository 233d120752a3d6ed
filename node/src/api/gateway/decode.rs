//! From JSON to a message, by its descriptor: names as in the .proto file or in camel case, 64-bit
//! numbers also as texts, bytes in base64, enums by name or number, and unknown names left out. What
//! is wrong is told in the words of Go's protojson, with line and column.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value,
};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Messages that may be inside of each other, as many as the binary form allows.
const DEPTH_MAX: usize = 100;

/// The one message of a body. No body at all is an empty message; what follows the first value does
/// not count.
pub(super) fn one(descriptor: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, String> {
    if body.is_empty() {
        return Ok(DynamicMessage::new(descriptor.clone()));
    }
    match next(descriptor, body)? {
        Some((message, _)) => Ok(message),
        None => Err("unexpected EOF".to_owned()),
    }
}

/// The first message, and the bytes it took; `None` if the end of it is missing.
pub(super) fn next(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
) -> Result<Option<(DynamicMessage, usize)>, String> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    match values.next() {
        None => Ok(None),
        Some(Err(error)) if error.is_eof() => Ok(None),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(value)) => {
            let text = value.get();
            Ok(Some((Text(text).message(descriptor, text, 0)?, values.byte_offset())))
        }
    }
}

/// The whole text, by which places in it are told.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn message(
        self,
        descriptor: &MessageDescriptor,
        value: &'a str,
        depth: usize,
    ) -> Result<DynamicMessage, String> {
        if depth == DEPTH_MAX {
            return Err("proto: exceeded maximum recursion depth".to_owned());
        }
        if !value.starts_with('{') {
            return Err(self.unexpected(value));
        }
        let entries: Entries<'_> =
            serde_json::from_str(value).map_err(|error| error.to_string())?;
        let mut message = DynamicMessage::new(descriptor.clone());
        let mut seen = BTreeSet::new();
        for (key, value) in entries.0 {
            let name: Cow<'_, str> =
                serde_json::from_str(key).map_err(|error| error.to_string())?;
            let field = descriptor.get_field_by_json_name(&name);
            let Some(field) = field.or_else(|| descriptor.get_field_by_name(&name)) else {
                continue;
            };
            if !seen.insert(field.number()) {
                let place = self.place(key);
                return Err(format!("proto: ({place}): duplicate field {key}"));
            }
            if value == "null" {
                continue;
            }
            if let Some(one_of) = field.containing_oneof()
                && one_of.fields().any(|other| message.has_field(&other))
            {
                let (place, name) = (self.place(key), one_of.full_name());
                return Err(format!(
                    "proto: ({place}): error parsing {key}, oneof {name} is already set"
                ));
            }
            if let Some(value) = self.field(&field, value, depth)? {
                message.set_field(&field, value);
            }
        }
        Ok(message)
    }

    /// `None` for a value that is left out.
    fn field(
        self,
        field: &FieldDescriptor,
        value: &'a str,
        depth: usize,
    ) -> Result<Option<Value>, String> {
        if !field.is_list() {
            return self.single(field, value, depth);
        }
        if !value.starts_with('[') {
            return Err(self.unexpected(value));
        }
        let values: Vec<&RawValue> =
            serde_json::from_str(value).map_err(|error| error.to_string())?;
        let mut list = Vec::with_capacity(values.len());
        for value in values {
            list.extend(self.single(field, value.get(), depth)?);
        }
        Ok(Some(Value::List(list)))
    }

    fn single(
        self,
        field: &FieldDescriptor,
        value: &'a str,
        depth: usize,
    ) -> Result<Option<Value>, String> {
        let (kind, read) = match field.kind() {
            Kind::Message(descriptor) => {
                let message = self.message(&descriptor, value, depth + 1)?;
                return Ok(Some(Value::Message(message)));
            }
            Kind::Enum(descriptor) => {
                let Some(number) = enum_number(&descriptor, value) else {
                    return Err(self.invalid("enum", field, value));
                };
                return Ok(number.map(Value::EnumNumber));
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                ("int64", integer(value).and_then(|n| n.try_into().ok()).map(Value::I64))
            }
            Kind::Uint64 | Kind::Fixed64 => {
                ("uint64", integer(value).and_then(|n| n.try_into().ok()).map(Value::U64))
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                ("int32", integer(value).and_then(|n| n.try_into().ok()).map(Value::I32))
            }
            Kind::Uint32 | Kind::Fixed32 => {
                ("uint32", integer(value).and_then(|n| n.try_into().ok()).map(Value::U32))
            }
            Kind::Bool => ("bool", serde_json::from_str(value).ok().map(Value::Bool)),
            Kind::String => ("string", serde_json::from_str(value).ok().map(Value::String)),
            Kind::Bytes => ("bytes", base64(value).map(|bytes| Value::Bytes(bytes.into()))),
            Kind::Double => ("double", serde_json::from_str(value).ok().map(Value::F64)),
            Kind::Float => ("float", serde_json::from_str(value).ok().map(Value::F32)),
        };
        read.map(Some).ok_or_else(|| self.invalid(kind, field, value))
    }

    fn invalid(self, kind: &str, field: &FieldDescriptor, value: &'a str) -> String {
        let (place, name) = (self.place(value), field.json_name());
        format!("proto: ({place}): invalid value for {kind} field {name}: {}", token(value))
    }

    fn unexpected(self, value: &'a str) -> String {
        format!("proto: syntax error ({}): unexpected token {}", self.place(value), token(value))
    }

    /// Where a part of the text begins.
    fn place(self, part: &'a str) -> String {
        let at = part.as_ptr().addr() - self.0.as_ptr().addr();
        let before = &self.0[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("line {line}:{column}")
    }
}

/// The first token of a value, by which Go tells of it.
fn token(value: &str) -> &str {
    if value.starts_with(['{', '[']) { &value[..1] } else { value }
}

/// The names and values of an object in their order, as they are written.
struct Entries<'a>(Vec<(&'a str, &'a str)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<'de>, M::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    entries.push((key.get(), value.get()));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// `Some(None)` for a name that the enum does not have, which is left out.
fn enum_number(descriptor: &EnumDescriptor, value: &str) -> Option<Option<i32>> {
    if value.starts_with('"') {
        let name: Cow<'_, str> = serde_json::from_str(value).ok()?;
        return Some(descriptor.get_value_by_name(&name).map(|value| value.number()));
    }
    let number = integer(value).filter(|_| !value.starts_with('"'))?;
    Some(Some(number.try_into().ok()?))
}

/// A whole number, also as a text and with a fraction or an exponent that leave it whole.
fn integer(value: &str) -> Option<i128> {
    let text: Cow<'_, str> = match value.starts_with('"') {
        true => serde_json::from_str(value).ok()?,
        false => Cow::Borrowed(value),
    };
    // A text holds a number as JSON writes it, and nothing around it.
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit())
        && !text.ends_with(char::is_whitespace)
        && serde_json::from_str::<&RawValue>(&text).is_ok();
    if !is_number {
        return None;
    }
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((&*text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    // Nothing stays nothing, by whatever power of ten.
    if fraction.is_empty() && matches!(whole, "0" | "-0") {
        return Some(0);
    }
    let exponent = i64::from(exponent.parse::<i32>().ok()?);
    let shift = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let mut digits = format!("{whole}{fraction}");
    // No integer has more digits than this.
    const DIGITS_MAX: i64 = 38;
    for _ in 0..shift.clamp(0, DIGITS_MAX) {
        digits.push('0');
    }
    for _ in 0..shift.clamp(-DIGITS_MAX, 0).unsigned_abs() {
        match digits.pop() {
            Some('0') => {}
            _ => return None,
        }
    }
    digits.parse().ok()
}

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

fn base64(value: &str) -> Option<Vec<u8>> {
    let text: Cow<'_, str> = serde_json::from_str(value).ok()?;
    let engine = if text.contains(['-', '_']) { URL_SAFE } else { STANDARD };
    // Tools break long lines.
    let text: Cow<'_, str> = match text.contains(['\r', '\n']) {
        true => text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect::<String>().into(),
        false => text,
    };
    engine.decode(text.as_bytes()).ok()
}
