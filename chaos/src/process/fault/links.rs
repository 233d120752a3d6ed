//! todo
use crate::process::fault::{Effect, Ground, Planned};
pub(super) async fn carry_out(
    _ground: &Ground,
    _planned: &Planned,
    _who: &mut String,
) -> anyhow::Result<Effect> {
    anyhow::bail!("later")
}
