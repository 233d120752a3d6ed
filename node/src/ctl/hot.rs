//! What the clients of a cluster ask for most: what its members tell of theirs, added up.

use flotilla_placement::units::Key;
use flotilla_proto::internal::{HotItem, HotRequest, HotResponse};
use futures::future::join_all;

use super::dial::Dialer;
use super::show;
use crate::router::added_up;

/// Names that are shown of each kind.
const SHOWN_MAX: usize = 10;

/// What all members told, and how many did not.
#[derive(Debug, Default)]
pub(super) struct Hot {
    told: Vec<HotResponse>,
    silent_count: usize,
}

/// Asks all members.
pub(super) async fn ask(dialer: &Dialer, url: &str) -> anyhow::Result<Hot> {
    let members = dialer.members(url).await?;
    let told = join_all(members.iter().map(async |member| {
        let mut client = dialer.connect_any(&member.client_ur_ls).await?;
        Some(client.hot(HotRequest {}).await.ok()?.into_inner())
    }));
    let told: Vec<HotResponse> = told.await.into_iter().flatten().collect();
    Ok(Hot { silent_count: members.len() - told.len(), told })
}

/// Three tables.
pub(super) fn text(hot: &Hot) -> String {
    let keys = hot.told.iter().flat_map(|told| &told.keys);
    let prefixes = hot.told.iter().flat_map(|told| &told.prefixes);
    let clients = hot.told.iter().flat_map(|told| &told.clients);
    let table = |head, rows: Vec<Vec<String>>| show::table(&[head, "CALLS/S"], rows.into_iter());
    let mut text = table("KEY", rows(keys));
    text.push('\n');
    text.push_str(&table("PREFIX", rows(prefixes)));
    text.push('\n');
    text.push_str(&table("CLIENT", rows(clients)));
    if hot.silent_count > 0 {
        text.push_str(&format!("({} members cannot be reached from here)\n", hot.silent_count));
    }
    text
}

/// Those with most first. Of what may be another's it is said how much.
fn rows<'i>(items: impl Iterator<Item = &'i HotItem>) -> Vec<Vec<String>> {
    let shown = added_up(items).into_iter().take(SHOWN_MAX).map(|item| {
        let HotItem { name, per_second, uncertain_per_second: uncertain } = item;
        let rate = match uncertain {
            uncertain if uncertain < 0.05 => format!("~{per_second:.1}"),
            uncertain => format!("~{:.1} to {per_second:.1}", per_second - uncertain),
        };
        vec![Key(&name).to_string(), rate]
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_members_tell_is_added_up() {
        let item = |name: &'static str, per_second, uncertain_per_second| HotItem {
            name: name.into(),
            per_second,
            uncertain_per_second,
        };
        let one = HotResponse {
            keys: vec![item("a", 3.0, 0.0), item("b", 2.0, 0.5)],
            prefixes: vec![],
            clients: vec![item("root@10.0.0.1", 5.0, 0.0)],
        };
        let other = HotResponse { keys: vec![item("b", 2.0, 0.0)], ..HotResponse::default() };
        let text = text(&Hot { told: vec![one, other], silent_count: 1 });
        let expected = "\
KEY  CALLS/S
b    ~3.5 to 4.0
a    ~3.0

PREFIX  CALLS/S

CLIENT         CALLS/S
root@10.0.0.1  ~5.0
(1 members cannot be reached from here)
";
        assert_eq!(text, expected);
    }
}
