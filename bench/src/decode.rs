//! Walks an encoded RangeResponse without building its keys: lists are large, and what the
//! generator spends on them is taken from the server beside it.

/// What a walk learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSummary {
    /// The header's revision, or zero.
    pub revision: i64,
    /// Keys in the answer.
    pub keys: u64,
    /// The count field.
    pub count: i64,
    /// The keys ascend.
    pub is_ascending: bool,
}

/// Summary of an encoded RangeResponse, or nothing if it is malformed.
#[must_use]
pub fn range_response(message: &[u8]) -> Option<RangeSummary> {
    let mut summary = RangeSummary { is_ascending: true, ..RangeSummary::default() };
    let mut last: &[u8] = b"";
    let mut rest = message;
    while let Some((field, value)) = next_field(&mut rest)? {
        match (field, value) {
            (1, Value::Bytes(header)) => {
                let mut header = header;
                while let Some((field, value)) = next_field(&mut header)? {
                    if let (3, Value::Number(revision)) = (field, value) {
                        summary.revision = revision as i64;
                    }
                }
            }
            (2, Value::Bytes(mut pair)) => {
                summary.keys += 1;
                // The key is the first field in every known encoder, and the only one needed.
                if let Some((1, Value::Bytes(key))) = next_field(&mut pair)? {
                    summary.is_ascending &= last < key;
                    last = key;
                }
            }
            (4, Value::Number(count)) => summary.count = count as i64,
            _ => {}
        }
    }
    Some(summary)
}

/// The RangeResponse inside an encoded RangeStreamResponse; empty if there is none.
#[must_use]
pub fn range_stream_response(message: &[u8]) -> Option<&[u8]> {
    let mut rest = message;
    while let Some((field, value)) = next_field(&mut rest)? {
        if let (1, Value::Bytes(response)) = (field, value) {
            return Some(response);
        }
    }
    Some(&[])
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The next field; nothing inside at the end, nothing outside if malformed.
#[allow(clippy::option_option, reason = "the end is not an error, and errors carry nothing")]
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<Option<(u64, Value<'a>)>> {
    if rest.is_empty() {
        return Some(None);
    }
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(rest)?),
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Value::Bytes(bytes)
        }
        1 => {
            *rest = rest.get(8..)?;
            Value::Number(0)
        }
        5 => {
            *rest = rest.get(4..)?;
            Value::Number(0)
        }
        _ => return None,
    };
    Some(Some((tag >> 3, value)))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use flotilla_proto::etcdserverpb::{RangeResponse, ResponseHeader};
    use flotilla_proto::mvccpb::KeyValue;
    use prost::Message as _;

    fn response(keys: &[&'static str]) -> RangeResponse {
        let pair = |key: &&'static str| KeyValue { key: (*key).into(), ..Default::default() };
        RangeResponse {
            header: Some(ResponseHeader { revision: 77, ..Default::default() }),
            kvs: keys.iter().map(pair).collect(),
            count: 900,
            ..Default::default()
        }
    }

    #[test]
    fn a_walk_agrees_with_decoding() {
        let summary = range_response(&response(&["a", "b", "c"]).encode_to_vec()).unwrap();
        let expected = RangeSummary { revision: 77, keys: 3, count: 900, is_ascending: true };
        assert_eq!(summary, expected);
        assert!(!range_response(&response(&["b", "a"]).encode_to_vec()).unwrap().is_ascending);
    }

    #[test]
    fn a_cut_message_is_malformed() {
        let encoded = response(&["a", "b"]).encode_to_vec();
        assert_eq!(range_response(&encoded[..encoded.len() - 1]), None);
    }
}
