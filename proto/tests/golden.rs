//! Holds the .proto files to the facts: every row of golden/wire.tsv and golden/services.tsv must
//! be in the descriptors, and nothing else may be there. The tables are etcd's client API of
//! v3.6.14 with the additions of v3.7.1, and grpc.health.v1; they never follow the .proto files.

use std::collections::BTreeMap;

use flotilla_proto::DESCRIPTOR_SET;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet,
};

const WIRE: &str = include_str!("golden/wire.tsv");
const SERVICES: &str = include_str!("golden/services.tsv");

/// Columns of each table that say which thing a row is about. The rest say how it is.
const WIRE_NAME_COLUMNS: usize = 4;
const SERVICES_NAME_COLUMNS: usize = 3;

/// Our own messages, which etcd's tables know nothing of.
const OWN_PACKAGE: &str = "flotilla.internal";

/// Stands in the field column for a message without fields.
const NO_FIELDS: &str = "(no fields)";

/// A table: from what a row is about to how it is.
type Rows = BTreeMap<Vec<String>, Vec<String>>;

#[test]
fn messages_are_those_of_etcd() {
    assert_same(&parse(WIRE, WIRE_NAME_COLUMNS), &wire(&descriptors()));
}

#[test]
fn services_are_those_of_etcd() {
    assert_same(&parse(SERVICES, SERVICES_NAME_COLUMNS), &services(&descriptors()));
}

#[test]
fn every_kind_of_drift_is_found() {
    let wanted = wire(&descriptors());

    let drift = |change: &dyn Fn(&mut DescriptorProto)| {
        let mut set = descriptors();
        change(message(&mut set, "mvccpb", "KeyValue"));
        differences(&wanted, &wire(&set))
    };
    assert_eq!(
        drift(&|key_value| key_value.field[5].number = Some(7)),
        ["differs: mvccpb message KeyValue lease: wanted 6 int64 singular -, \
          is 7 int64 singular -"]
    );
    assert_eq!(
        drift(&|key_value| key_value.field[5].set_type(Type::Uint64)),
        ["differs: mvccpb message KeyValue lease: wanted 6 int64 singular -, \
          is 6 uint64 singular -"]
    );
    assert_eq!(
        drift(&|key_value| key_value.field[5].set_label(Label::Repeated)),
        ["differs: mvccpb message KeyValue lease: wanted 6 int64 singular -, \
          is 6 int64 repeated(packed) -"]
    );
    assert_eq!(
        drift(&|key_value| key_value.field[5].name = Some("lessee".into())),
        [
            "missing: mvccpb message KeyValue lease: 6 int64 singular -",
            "extra: mvccpb message KeyValue lessee: 6 int64 singular -",
        ]
    );

    let mut set = descriptors();
    let op = message(&mut set, "etcdserverpb", "RequestOp");
    op.field[1].oneof_index = None;
    assert_eq!(
        differences(&wanted, &wire(&set)),
        ["differs: etcdserverpb message RequestOp request_put: \
          wanted 2 message:etcdserverpb.PutRequest singular request, \
          is 2 message:etcdserverpb.PutRequest singular -"]
    );

    let mut set = descriptors();
    message(&mut set, "mvccpb", "Event").enum_type[0].value[1].number = Some(2);
    assert_eq!(
        differences(&wanted, &wire(&set)),
        ["differs: mvccpb enum Event.EventType DELETE: \
          wanted 1 enum-value - -, is 2 enum-value - -"]
    );
}

#[test]
fn a_changed_method_is_found() {
    let mut set = descriptors();
    let mut all = set.file.iter_mut().flat_map(|file| &mut file.service);
    let watch = all.find(|service| service.name() == "Watch");
    watch.expect("the service exists").method[0].client_streaming = Some(false);
    assert_eq!(
        differences(&services(&descriptors()), &services(&set)),
        ["differs: etcdserverpb Watch Watch: \
          wanted etcdserverpb.WatchRequest etcdserverpb.WatchResponse bidi-stream, \
          is etcdserverpb.WatchRequest etcdserverpb.WatchResponse server-stream"]
    );
}

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(DESCRIPTOR_SET).expect("the crate embeds what the compiler wrote")
}

fn message<'a>(
    set: &'a mut FileDescriptorSet,
    package: &str,
    name: &str,
) -> &'a mut DescriptorProto {
    let files = set.file.iter_mut().filter(|file| file.package() == package);
    files
        .flat_map(|file| &mut file.message_type)
        .find(|message| message.name() == name)
        .expect("the message exists")
}

#[track_caller]
fn assert_same(wanted: &Rows, found: &Rows) {
    let differences = differences(wanted, found);
    assert!(
        differences.is_empty(),
        "{} rows differ from the table:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

/// One line for each row that only one side has, or that the sides have differently. First the
/// rows of the table in the order of their names, then the rows it lacks.
fn differences(wanted: &Rows, found: &Rows) -> Vec<String> {
    let mut lines = Vec::new();
    for name in wanted.keys().chain(found.keys().filter(|name| !wanted.contains_key(*name))) {
        let title = name.join(" ");
        match (wanted.get(name), found.get(name)) {
            (Some(wanted), Some(found)) if wanted == found => {}
            (Some(wanted), Some(found)) => {
                lines.push(format!("differs: {title}: wanted {}, is {}", say(wanted), say(found)));
            }
            (Some(wanted), None) => lines.push(format!("missing: {title}: {}", say(wanted))),
            (None, Some(found)) => lines.push(format!("extra: {title}: {}", say(found))),
            (None, None) => {}
        }
    }
    lines
}

fn say(columns: &[String]) -> String {
    let columns: Vec<&str> =
        columns.iter().map(|column| if column.is_empty() { "-" } else { column }).collect();
    columns.join(" ")
}

/// Reads a table whose first line names the columns.
fn parse(table: &str, name_columns: usize) -> Rows {
    let mut lines = table.lines();
    let columns_count = lines.next().expect("a table has a title").split('\t').count();
    let mut rows = Rows::new();
    for line in lines {
        let mut name: Vec<String> = line.split('\t').map(str::to_owned).collect();
        assert_eq!(name.len(), columns_count, "columns of {line:?}");
        let rest = name.split_off(name_columns);
        add(&mut rows, name, rest);
    }
    assert!(!rows.is_empty());
    rows
}

fn add(rows: &mut Rows, name: Vec<String>, rest: Vec<String>) {
    let title = name.join(" ");
    assert!(rows.insert(name, rest).is_none(), "{title} is there twice");
}

fn services(set: &FileDescriptorSet) -> Rows {
    let mut rows = Rows::new();
    for file in public_files(set) {
        for service in &file.service {
            for method in &service.method {
                let streaming = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "unary",
                    (false, true) => "server-stream",
                    (true, false) => "client-stream",
                    (true, true) => "bidi-stream",
                };
                let name = [file.package(), service.name(), method.name()];
                let rest =
                    [full_name(method.input_type()), full_name(method.output_type()), streaming];
                add(&mut rows, owned(&name), owned(&rest));
            }
        }
    }
    rows
}

fn wire(set: &FileDescriptorSet) -> Rows {
    let mut rows = Rows::new();
    for file in public_files(set) {
        assert!(file.extension.is_empty(), "{} extends messages", file.name());
        for message in &file.message_type {
            add_message(&mut rows, file, "", message);
        }
        for enumeration in &file.enum_type {
            add_enum(&mut rows, file, "", enumeration);
        }
    }
    rows
}

fn public_files(set: &FileDescriptorSet) -> impl Iterator<Item = &FileDescriptorProto> {
    set.file.iter().filter(|file| file.package() != OWN_PACKAGE)
}

/// Adds a message's fields and what is declared inside it. `outer` is empty, or the name of the
/// enclosing message and a dot.
fn add_message(
    rows: &mut Rows,
    file: &FileDescriptorProto,
    outer: &str,
    message: &DescriptorProto,
) {
    let message_name = format!("{outer}{}", message.name());
    let name = |field| owned(&[file.package(), "message", &message_name, field]);
    if message.field.is_empty() {
        add(rows, name(NO_FIELDS), owned(&["", "", "", ""]));
    }
    for field in &message.field {
        let oneof = match field.oneof_index {
            // The compiler wraps each `optional` field of proto3 in a oneof of its own.
            Some(index) if !field.proto3_optional() => message.oneof_decl[index as usize].name(),
            Some(_) | None => "",
        };
        let rest = [&field.number().to_string(), &type_name(field), label(file, field), oneof];
        add(rows, name(field.name()), owned(&rest));
    }
    let inner = format!("{message_name}.");
    for nested in &message.nested_type {
        add_message(rows, file, &inner, nested);
    }
    for nested in &message.enum_type {
        add_enum(rows, file, &inner, nested);
    }
}

fn add_enum(
    rows: &mut Rows,
    file: &FileDescriptorProto,
    outer: &str,
    enumeration: &EnumDescriptorProto,
) {
    let enum_name = format!("{outer}{}", enumeration.name());
    for value in &enumeration.value {
        let name = [file.package(), "enum", &enum_name, value.name()];
        add(rows, owned(&name), owned(&[&value.number().to_string(), "enum-value", "", ""]));
    }
}

/// `proto2` fields are `optional` or `required` where `proto3` fields are `singular`.
fn label(file: &FileDescriptorProto, field: &FieldDescriptorProto) -> &'static str {
    let is_proto3 = file.syntax() == "proto3";
    match field.label() {
        Label::Repeated if is_packed(is_proto3, field) => "repeated(packed)",
        Label::Repeated => "repeated",
        Label::Optional if is_proto3 && !field.proto3_optional() => "singular",
        Label::Optional => "optional",
        Label::Required => "required",
    }
}

/// Numbers, which have no length of their own, share one length when repeated: always by default
/// in `proto3`, on demand in `proto2`.
fn is_packed(is_proto3: bool, field: &FieldDescriptorProto) -> bool {
    let can_be_packed =
        !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message | Type::Group);
    let wanted = field.options.as_ref().and_then(|options| options.packed);
    can_be_packed && wanted.unwrap_or(is_proto3)
}

fn type_name(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message => format!("message:{}", full_name(field.type_name())),
        Type::Enum => format!("enum:{}", full_name(field.type_name())),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

/// The compiler writes resolved names with a leading dot.
fn full_name(name: &str) -> &str {
    name.strip_prefix('.').expect("the compiler resolves names")
}

fn owned(columns: &[&str]) -> Vec<String> {
    columns.iter().map(|&column| column.to_owned()).collect()
}
