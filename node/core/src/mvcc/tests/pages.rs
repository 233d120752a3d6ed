//! Streamed reads piece by piece.

use super::*;

fn store() -> Store {
    let mut store = Store::new();
    for n in 0..10 {
        store.put(put(&format!("k{n}"), "1234567890")).unwrap();
    }
    store
}

fn pages(store: &Store, request: &pb::RangeRequest, bytes_max: usize) -> Vec<pb::RangeResponse> {
    let mut pages = Vec::new();
    let mut cursor = None;
    loop {
        let page = read_page(&store.view, store.head, request, cursor, bytes_max).unwrap();
        pages.push(page.answer);
        cursor = page.next;
        if cursor.is_none() {
            return pages;
        }
    }
}

#[test]
fn pieces_are_cut_by_bytes() {
    let store = store();
    let sizes = |request: &pb::RangeRequest, bytes_max| -> Vec<usize> {
        pages(&store, request, bytes_max).iter().map(|page| page.kvs.len()).collect()
    };
    let all = range("k", "\0");
    assert_eq!(sizes(&all, usize::MAX), [10]);
    assert_eq!(sizes(&all, 0), [1; 10]);
    // A key-value has 22 bytes here.
    assert_eq!(sizes(&all, 44), [2; 5]);
    assert_eq!(sizes(&all, 45), [3, 3, 3, 1]);
    assert_eq!(sizes(&pb::RangeRequest { limit: 3, ..all.clone() }, 44), [2, 1]);
    assert_eq!(sizes(&pb::RangeRequest { limit: 4, ..all.clone() }, 44), [2, 2]);
    assert_eq!(sizes(&pb::RangeRequest { limit: -4, ..all.clone() }, 44), [2; 5]);
    assert_eq!(sizes(&pb::RangeRequest { count_only: true, limit: 1, ..all }, 0), [0]);
    assert_eq!(sizes(&range("none", ""), 0), [0]);
    assert_eq!(sizes(&range("k3", ""), 0), [1]);
}

#[test]
fn header_count_and_more_come_last() {
    let store = store();
    let request = pb::RangeRequest { limit: 4, ..range("k", "\0") };
    let pages = pages(&store, &request, 44);
    assert_eq!((&pages[0].header, pages[0].count, pages[0].more), (&None, 0, false));
    let header = pages[1].header.as_ref().unwrap();
    assert_eq!((header.revision, pages[1].count, pages[1].more), (11, 10, true));
    let request = pb::RangeRequest { limit: 10, revision: 11, keys_only: true, ..request };
    let pages = self::pages(&store, &request, 1);
    let last = pages.last().unwrap();
    assert_eq!((last.count, last.more, pages.len()), (10, false, 10));
    assert!(pages.iter().all(|page| page.kvs[0].value.is_empty()));
}

#[test]
fn a_target_without_an_order_is_ignored() {
    let mut store = store();
    store.put(put("k0", "newest")).unwrap();
    let request = pb::RangeRequest { sort_target: 3, ..range("k", "\0") };
    assert_eq!(pages(&store, &request, usize::MAX)[0].kvs[0].key, "k0");
}

#[test]
fn later_writes_do_not_show() {
    let mut store = store();
    for revision in [0, -5, 11] {
        let request = pb::RangeRequest { revision, ..range("k", "\0") };
        let mut kvs = Vec::new();
        let first = read_page(&store.view, store.head, &request, None, 44).unwrap();
        kvs.extend(first.answer.kvs);
        let mut cursor = first.next;
        let before = store.head.revision;
        while cursor.is_some() {
            store.put(put("k7", "changed")).unwrap();
            store.delete(delete("k9", "")).unwrap();
            store.put(put("k99", "new")).unwrap();
            let page = read_page(&store.view, store.head, &request, cursor, 44).unwrap();
            kvs.extend(page.answer.kvs);
            cursor = page.next;
            if cursor.is_none() {
                assert_eq!(page.answer.header.unwrap().revision, before);
                assert_eq!(page.answer.count, kvs.len() as i64);
            }
        }
        let at = if revision == 11 { 11 } else { before };
        assert_eq!(show(&kvs), store.dump_at(at));
        store.put(put("k9", "back")).unwrap();
    }
}

#[test]
fn compaction_in_the_middle() {
    let mut store = store();
    let request = pb::RangeRequest { revision: 11, limit: 6, ..range("k", "\0") };
    let first = read_page(&store.view, store.head, &request, None, 44).unwrap();
    store.put(put("k5", "changed")).unwrap();
    store.compact(11).unwrap();
    store.compact_rows(100, 1);
    let at = read_page(&store.view, store.head, &request, first.next.clone(), 44).unwrap();
    assert_eq!(show(&at.answer.kvs), "k2=1234567890 k3=1234567890");
    store.compact(12).unwrap();
    let above = read_page(&store.view, store.head, &request, first.next, 44);
    assert_eq!(above, Err(Failure::Client(Error::Compacted)));
}

#[test]
fn revisions_that_cannot_be_read() {
    let mut store = store();
    store.compact(5).unwrap();
    for (revision, want) in [(4, Error::Compacted), (12, Error::FutureRevision)] {
        for count_only in [false, true] {
            let request = pb::RangeRequest { revision, count_only, ..range("k", "\0") };
            let got = read_page(&store.view, store.head, &request, None, 44);
            assert_eq!(got, Err(Failure::Client(want)));
        }
    }
}

/// Keys that lie together are sent from the buffer that the store was read into.
#[test]
fn a_list_is_cut_from_what_was_read() {
    let mut store = store();
    let request = range("k", "\0");
    let encoded = |store: &Store, head, bytes_max| {
        let page = read_encoded(&store.view, head, &request, None, bytes_max).unwrap();
        (page.answer.kvs.len(), page.answer.count, page.rest == Rest::Done)
    };
    // Three rows are read at once here.
    assert_eq!(encoded(&store, store.head, usize::MAX), (4, 10, true));
    assert_eq!(encoded(&store, store.head, 44).0, 1);
    let before = store.head;
    store.put(put("k4", "newer")).unwrap();
    // What was superseded is between its neighbours.
    assert_eq!(encoded(&store, before, usize::MAX), (6, 10, true));
    let limited = pb::RangeRequest { limit: 10, ..request.clone() };
    let page = read_encoded(&store.view, before, &limited, None, usize::MAX).unwrap();
    assert_eq!((page.answer.more, &page.rest), (false, &Rest::Done));
    let limited = pb::RangeRequest { limit: 4, ..request.clone() };
    let page = read_encoded(&store.view, before, &limited, None, usize::MAX).unwrap();
    let Rest::Count(rest) = page.rest else { panic!("{page:?}") };
    assert_eq!((page.answer.more, page.answer.count), (true, 4));
    assert_eq!(count_rest(&store.view, before, &rest), Ok(6));
    let compacted = Head { compact_revision: store.head.revision, ..store.head };
    assert_eq!(count_rest(&store.view, compacted, &rest), Err(Error::Compacted.into()));
}

/// The budget for answers counts the bytes that are sent, so they are to be all that is kept.
#[test]
fn what_is_sent_keeps_no_other_rows_in_memory() {
    let mut store = Store::new();
    for n in 0..3 {
        store.put(put(&format!("k{n}"), &"v".repeat(10_000))).unwrap();
    }
    let request = range("k", "\0");
    for limit in [0, 1] {
        let request = pb::RangeRequest { limit, ..request.clone() };
        let page = read_encoded(&store.view, store.head, &request, None, 1).unwrap();
        assert_ne!(page.rest, Rest::Done);
        let [piece] = <[Bytes; 1]>::try_from(page.answer.kvs).expect("one row is one piece");
        let buffer = piece.try_into_mut().expect("nobody else has it");
        assert!(buffer.capacity() < 20_000, "{} bytes", buffer.capacity());
    }
}
