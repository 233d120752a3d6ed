//! The headers of answers. Which answers have one, and which carry a revision, is etcd's choice.

use flotilla_core::proto::etcdserverpb::ResponseHeader;

use super::Context;

/// A header that the machine may have begun with a revision; without one, the applied revision is
/// taken.
pub(super) fn complete(context: &Context, begun: Option<ResponseHeader>) -> Option<ResponseHeader> {
    let revision = begun.map_or(0, |header| header.revision);
    let revision = if revision == 0 { context.board().head().revision } else { revision };
    Some(ResponseHeader { revision, ..without_revision(context) })
}

/// The header of the cluster's own methods.
pub(super) fn without_revision(context: &Context) -> ResponseHeader {
    let board = context.board();
    ResponseHeader {
        cluster_id: board.cluster_id(),
        member_id: board.member_id(),
        revision: 0,
        raft_term: board.term(),
    }
}
