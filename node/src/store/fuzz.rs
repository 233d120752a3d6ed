//! The file HEAD, with damage that its checksum does not vouch for and damage that it does.

use std::path::Path;

use flotilla_fuzz::{Target, damaged, number};
use proptest::prelude::*;

use super::Error;
use super::head::Head;

#[test]
fn fuzz_store_head() {
    let heads = (number(), number()).prop_map(|(generation, flushed)| Head { generation, flushed });
    let texts = heads.prop_map(|head| head.to_text().into_bytes());
    let inputs = (damaged(texts), any::<bool>());
    Target::new("store/head").cases(512).run(inputs, |(mut bytes, is_signed)| {
        let body_end = bytes.windows(9).rposition(|window| window == b"checksum ");
        if let (true, Some(end)) = (is_signed, body_end) {
            let checksum = crc32c::crc32c(&bytes[..end]);
            bytes.truncate(end);
            bytes.extend(format!("checksum {checksum:08x}\n").into_bytes());
        }
        match Head::parse(Path::new("HEAD"), &bytes) {
            Ok(head) => {
                let again = Head::parse(Path::new("HEAD"), head.to_text().as_bytes());
                assert_eq!(again.expect("it was written a moment ago"), head);
            }
            Err(Error::Damaged { .. }) => {}
            Err(Error::NewerFormat { found, known, .. }) => assert!(found > known),
            Err(error) => panic!("{error}"),
        }
    });
}
