//! todo
use crate::process::fault::{Effect, Ground, Planned};
use crate::sim::chance::Chance;
pub(super) async fn replace(
    _ground: &Ground,
    _planned: &Planned,
    _who: &mut String,
    _chance: &mut Chance,
) -> anyhow::Result<Effect> {
    anyhow::bail!("later")
}
pub(super) async fn grow(
    _ground: &Ground,
    _planned: &Planned,
    _who: &mut String,
) -> anyhow::Result<Effect> {
    anyhow::bail!("later")
}
