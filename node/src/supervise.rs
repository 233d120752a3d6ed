//! Stopping when going on would be wrong: a broken disk, a broken promise, a thread that died.

/// Says why and ends the process at once. Nothing is flushed: what is acknowledged is durable.
pub fn fatal(reason: &str) -> ! {
    tracing::error!(reason, "stopping: going on could lose or corrupt data");
    eprintln!("flotilla: fatal: {reason}");
    std::process::exit(70)
}

/// Makes every panic end the process, whichever thread it is on: a replica that lost a thread
/// must not answer for what it no longer does.
pub fn stop_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        tracing::error!(%info, "stopping after a panic");
        std::process::abort();
    }));
}
