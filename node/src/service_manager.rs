//! What systemd is told of this process, if it asks (`Type=notify`): that it serves, that it stops,
//! and again and again that its main thread still turns.

use std::time::Duration;

use sd_notify::NotifyState;

/// Signs of life in the time after which systemd would take the process for dead.
const SIGNS_PER_WATCHDOG: u32 = 2;

/// The node serves linearizable reads and writes. Nothing happens when nobody asked.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// The node has begun to stop.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

/// Gives signs of life from the thread this is called on, as often as `WATCHDOG_USEC` asks for,
/// if anyone asked. Called where the spine's actor runs, it ends with the actor's turns: a
/// node that hangs is started anew.
pub fn watchdog() {
    if let Some(within) = sd_notify::watchdog_enabled() {
        actix::spawn(signs_of_life(within / SIGNS_PER_WATCHDOG));
    }
}

async fn signs_of_life(interval: Duration) {
    loop {
        // A manager that does not listen must not keep this thread from its work.
        let told = tokio::task::spawn_blocking(|| tell(NotifyState::Watchdog)).await;
        if told.is_err() {
            return;
        }
        tokio::time::sleep(interval).await;
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager was not told of this node's state");
    }
}
