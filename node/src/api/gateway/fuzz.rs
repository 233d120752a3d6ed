//! Bodies of any content: each is a message or is refused, and JSON of a message is that message again.

use flotilla_fuzz::{Messages, Target, damaged, number};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DynamicMessage, ReflectMessage};

use super::*;

const NAMES: [&str; 6] = [
    "etcdserverpb.RangeRequest",
    "etcdserverpb.TxnRequest",
    "etcdserverpb.WatchRequest",
    "etcdserverpb.LeaseGrantRequest",
    "etcdserverpb.AuthUserAddRequest",
    "etcdserverpb.AlarmRequest",
];

/// A message by its name, and JSON of it.
fn bodies() -> impl Strategy<Value = (&'static str, Vec<u8>, Vec<u8>)> + Clone {
    let messages = Messages::new(DESCRIPTOR_SET);
    let all = NAMES.map(|name| (Just(name), messages.encoded(name)).boxed());
    let all = proptest::sample::select(all.to_vec()).prop_flat_map(|one| one);
    all.prop_map(|(name, message)| {
        let descriptor = DESCRIPTORS.get_message_by_name(name).unwrap();
        let mut text = Vec::new();
        encode::append(&descriptor, &message, &mut text).unwrap();
        (name, message, text)
    })
    .boxed()
}

#[test]
fn fuzz_gateway_bodies_come_back() {
    Target::new("gateway/bodies_come_back").run(bodies(), |(name, message, text)| {
        let descriptor = DESCRIPTORS.get_message_by_name(name).unwrap();
        let read = decode::one(&descriptor, &text).unwrap();
        let sent = DynamicMessage::decode(descriptor, &message[..]).unwrap();
        // An enum's unknown number comes back as a number, and what has its default is not told.
        let read = DynamicMessage::decode(read.descriptor(), &read.encode_to_vec()[..]).unwrap();
        let again = |message: &DynamicMessage| {
            let mut text = Vec::new();
            encode::append(&message.descriptor(), &message.encode_to_vec(), &mut text).unwrap();
            String::from_utf8(text).unwrap()
        };
        assert_eq!(again(&read), again(&sent));
    });
}

#[test]
fn fuzz_gateway_damaged_bodies() {
    let names = proptest::sample::select(NAMES.to_vec());
    let bodies = damaged(bodies().prop_map(|(_, _, text)| text));
    Target::new("gateway/damaged_bodies").cases(512).run((names, bodies), |(name, text)| {
        let descriptor = DESCRIPTORS.get_message_by_name(name).unwrap();
        if let Ok(message) = decode::one(&descriptor, &text) {
            let encoded = message.encode_to_vec();
            DynamicMessage::decode(descriptor.clone(), &encoded[..]).expect("a message");
        }
        let mut rest = &text[..];
        while let Ok(Some((_, bytes))) = decode::next(&descriptor, rest) {
            assert!(bytes > 0);
            rest = &rest[bytes..];
        }
    });
}

/// What Go's protojson makes of a number: it is whole, or none; zero is zero by whatever power.
fn whole(digits: &str, fraction: &str, exponent: i64) -> Option<i128> {
    let all = format!("{digits}{fraction}");
    let shift = exponent - fraction.len() as i64;
    if all.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    let zeros = all.len() - all.trim_end_matches('0').len();
    let (kept, shift) = match usize::try_from(-shift) {
        Ok(dropped) if dropped <= zeros => (&all[..all.len() - dropped], 0),
        Ok(_) => return None,
        Err(_) => (&all[..], shift),
    };
    if shift > 40 {
        return None;
    }
    kept.parse::<i128>().ok()?.checked_mul(10_i128.checked_pow(u32::try_from(shift).ok()?)?)
}

/// Numbers in every form that JSON has, against plain arithmetic.
#[test]
fn fuzz_gateway_numbers() {
    let digits = (number(), 0..20_usize, any::<bool>()).prop_map(|(number, zeros, has_zeros)| {
        let zeros = if has_zeros && number > 0 { zeros } else { 0 };
        format!("{number}{}", "0".repeat(zeros))
    });
    let fraction = proptest::option::of("[0-9]{1,4}|0{1,30}");
    let exponent = proptest::option::of(prop_oneof![
        -25..25_i64,
        Just(i64::from(i32::MIN)),
        Just(i64::from(i32::MAX)),
        Just(i64::from(i32::MIN) - 1),
    ]);
    let inputs = (digits, fraction, exponent, any::<bool>(), any::<bool>(), vec(any::<u8>(), 0..2));
    let descriptor = DESCRIPTORS.get_message_by_name("etcdserverpb.LeaseGrantRequest").unwrap();
    let target = Target::new("gateway/numbers").cases(512);
    target.run(inputs, |(digits, fraction, exponent, is_negative, is_text, noise)| {
        let mut text = digits.clone();
        if is_negative {
            text.insert(0, '-');
        }
        if let Some(fraction) = &fraction {
            text = format!("{text}.{fraction}");
        }
        if let Some(exponent) = exponent {
            text = format!("{text}e{exponent}");
        }
        text.extend(noise.iter().map(|byte| char::from(b' ' + byte % 90)).filter(|c| *c != '"'));
        let is_plain = noise.is_empty();
        let quote = if is_text { "\"" } else { "" };
        let body = format!("{{\"ID\":{quote}{text}{quote}}}");
        let read = decode::one(&descriptor, body.as_bytes());
        let value = read.ok().map(|message| {
            message.get_field_by_name("ID").and_then(|value| value.as_i64()).expect("a number")
        });
        if is_plain {
            let known = whole(&digits, fraction.as_deref().unwrap_or(""), exponent.unwrap_or(0))
                .filter(|it| *it == 0 || exponent.is_none_or(|it| i32::try_from(it).is_ok()))
                .map(|number| if is_negative { -number } else { number })
                .and_then(|number| i64::try_from(number).ok());
            assert_eq!(value, known, "{body}");
        }
    });
}
