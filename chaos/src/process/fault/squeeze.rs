//! todo
use crate::process::fault::{Effect, Ground, Planned};
use crate::sim::chance::Chance;
pub(super) async fn carry_out(
    _ground: &Ground,
    _planned: &Planned,
    _who: &mut String,
    _chance: &mut Chance,
) -> anyhow::Result<Effect> {
    anyhow::bail!("later")
}

/// Later.
pub fn missing_control_groups() -> Option<String> {
    None
}
