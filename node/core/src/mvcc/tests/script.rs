//! Requests and answers as text, so that a test can be read as a conversation: a line that starts
//! with `> ` is a request, the line below it the answer.
//!
//! Words are parted by spaces; `..END` is a range end, `NAME` or `NAME=N` sets a field, `""` is
//! empty and `\0` a zero byte. A transaction is `txn ( compares ) ( success ) ( failure )` with
//! `;` between the parts of a list.

use super::*;
use crate::proto::etcdserverpb::compare::TargetUnion;
use crate::proto::etcdserverpb::response_op::Response;

/// Runs the requests of a conversation and compares the whole of it.
pub(super) fn check(text: &str) {
    let mut store = Store::new();
    let mut said = String::new();
    for line in text.trim().lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            said.push_str(line);
            said.push('\n');
        } else if let Some(request) = line.strip_prefix("> ") {
            let answer = say(&mut store, request).unwrap_or_else(|error| format!("! {error}"));
            said.push_str(&format!("> {request}\n{answer}\n"));
        }
    }
    let wanted: Vec<_> = text.trim().lines().map(str::trim).collect();
    assert_eq!(said.trim_end(), wanted.join("\n"), "got:\n{said}");
}

fn say(store: &mut Store, line: &str) -> Result<String, Error> {
    let mut words = Words(line.split_whitespace().collect(), 0);
    match words.next() {
        "grant" => {
            store.leases.0.insert(words.number());
            Ok("ok".into())
        }
        "compact" => store.compact(words.number()).map(|()| "ok".into()),
        "compact-rows" => {
            store.compact_rows(usize::MAX, usize::MAX);
            Ok("ok".into())
        }
        "lease-keys" => {
            let keys = lease_keys(&store.view, LeaseId(words.number())).unwrap();
            let shown = keys.iter().map(text).collect::<Vec<_>>().join(" ");
            Ok(if keys.is_empty() { "none".into() } else { shown })
        }
        "put" => Ok(show_put(&store.put(words.put())?)),
        "delete" => Ok(show_delete(&store.delete(words.delete())?)),
        "range" => Ok(show_range(&store.read(&words.range())?)),
        "txn" => Ok(show_txn(&store.txn(words.txn())?)),
        other => panic!("unknown request {other}"),
    }
}

struct Words<'a>(Vec<&'a str>, usize);

impl<'a> Words<'a> {
    fn peek(&self) -> &'a str {
        self.0.get(self.1).copied().unwrap_or("")
    }

    fn next(&mut self) -> &'a str {
        let word = self.peek();
        self.1 += 1;
        word
    }

    fn bytes(&mut self) -> Bytes {
        let word = self.next();
        if word == "\"\"" { Bytes::new() } else { word.replace("\\0", "\0").into_bytes().into() }
    }

    fn range_end(&mut self) -> Bytes {
        match self.peek().strip_prefix("..") {
            Some(end) => {
                self.next();
                end.replace("\\0", "\0").into_bytes().into()
            }
            None => Bytes::new(),
        }
    }

    fn number(&mut self) -> i64 {
        self.next().parse().unwrap()
    }

    /// The fields that follow, as `(name, number)`.
    fn fields(&mut self) -> Vec<(&'a str, i64)> {
        let mut fields = Vec::new();
        while !["", ";", ")"].contains(&self.peek()) {
            let word = self.next();
            fields.push(match word.split_once('=') {
                Some((name, number)) => (name, number.parse().unwrap()),
                None => (word, 1),
            });
        }
        fields
    }

    fn put(&mut self) -> pb::PutRequest {
        let (key, value) = (self.bytes(), self.bytes());
        let mut request = pb::PutRequest { key, value, ..Default::default() };
        for (name, number) in self.fields() {
            match name {
                "lease" => request.lease = number,
                "prev" => request.prev_kv = true,
                "ignore_value" => request.ignore_value = true,
                "ignore_lease" => request.ignore_lease = true,
                other => panic!("unknown field {other}"),
            }
        }
        request
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = (self.bytes(), self.range_end());
        let prev_kv = self.fields().iter().any(|(name, _)| *name == "prev");
        pb::DeleteRangeRequest { key, range_end, prev_kv }
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = (self.bytes(), self.range_end());
        let mut request = pb::RangeRequest { key, range_end, ..Default::default() };
        for (name, number) in self.fields() {
            match name {
                "rev" => request.revision = number,
                "limit" => request.limit = number,
                "order" => request.sort_order = number as i32,
                "target" => request.sort_target = number as i32,
                "count_only" => request.count_only = true,
                "keys_only" => request.keys_only = true,
                "min_mod" => request.min_mod_revision = number,
                "max_mod" => request.max_mod_revision = number,
                "min_create" => request.min_create_revision = number,
                "max_create" => request.max_create_revision = number,
                other => panic!("unknown field {other}"),
            }
        }
        request
    }

    fn compare(&mut self) -> pb::Compare {
        let target = self.next();
        let (key, range_end) = (self.bytes(), self.range_end());
        let result = match self.next() {
            "=" => 0,
            ">" => 1,
            "<" => 2,
            "!=" => 3,
            other => other.parse().unwrap(),
        };
        let (target, union) = match target {
            "version" => (0, TargetUnion::Version as fn(i64) -> TargetUnion),
            "create" => (1, TargetUnion::CreateRevision as fn(i64) -> TargetUnion),
            "mod" => (2, TargetUnion::ModRevision as fn(i64) -> TargetUnion),
            "lease" => (4, TargetUnion::Lease as fn(i64) -> TargetUnion),
            "value" => {
                let target_union = Some(TargetUnion::Value(self.bytes()));
                return pb::Compare { result, target: 3, key, range_end, target_union };
            }
            other => (other.parse().unwrap(), TargetUnion::Version as fn(i64) -> TargetUnion),
        };
        // Without a number the union stays unset.
        let is_set = ![";", ")"].contains(&self.peek());
        let target_union = is_set.then(|| union(self.number()));
        pb::Compare { result, target, key, range_end, target_union }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: self.list(Self::compare),
            success: self.list(Self::op),
            failure: self.list(Self::op),
        }
    }

    fn op(&mut self) -> pb::RequestOp {
        let request = match self.next() {
            "put" => Request::RequestPut(self.put()),
            "delete" => Request::RequestDeleteRange(self.delete()),
            "range" => Request::RequestRange(self.range()),
            "txn" => Request::RequestTxn(self.txn()),
            "nothing" => return pb::RequestOp { request: None },
            other => panic!("unknown operation {other}"),
        };
        op(request)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let mut items = Vec::new();
        if self.peek() != "(" {
            return items;
        }
        self.next();
        while self.peek() != ")" {
            items.push(item(self));
            if self.peek() == ";" {
                self.next();
            }
        }
        self.next();
        items
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\\0")
}

fn show_header(header: &Option<pb::ResponseHeader>) -> String {
    match header {
        Some(header) => format!("rev {}", header.revision),
        None => "no header".into(),
    }
}

fn show_kv(kv: &KeyValue) -> String {
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
    format!(
        "{}={} (create {} mod {} version {}{lease})",
        text(&kv.key),
        text(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

fn show_kvs<'a>(kvs: impl IntoIterator<Item = &'a KeyValue>) -> String {
    let shown: Vec<_> = kvs.into_iter().map(show_kv).collect();
    if shown.is_empty() { String::new() } else { format!(": {}", shown.join(", ")) }
}

fn show_put(answer: &pb::PutResponse) -> String {
    format!("{}{}", show_header(&answer.header), show_kvs(&answer.prev_kv))
}

fn show_delete(answer: &pb::DeleteRangeResponse) -> String {
    let kvs = show_kvs(&answer.prev_kvs);
    format!("{} deleted {}{kvs}", show_header(&answer.header), answer.deleted)
}

fn show_range(answer: &pb::RangeResponse) -> String {
    let more = if answer.more { " more" } else { "" };
    let kvs = show_kvs(&answer.kvs);
    format!("{} count {}{more}{kvs}", show_header(&answer.header), answer.count)
}

fn show_txn(answer: &pb::TxnResponse) -> String {
    let succeeded = if answer.succeeded { "yes" } else { "no" };
    let responses: Vec<_> = answer
        .responses
        .iter()
        .map(|op| match &op.response {
            Some(Response::ResponsePut(put)) => show_put(put),
            Some(Response::ResponseDeleteRange(delete)) => show_delete(delete),
            Some(Response::ResponseRange(range)) => show_range(range),
            Some(Response::ResponseTxn(txn)) => show_txn(txn),
            None => "nothing".into(),
        })
        .collect();
    let responses = responses.join(" ; ");
    format!("{} {succeeded} [ {responses} ]", show_header(&answer.header))
}
