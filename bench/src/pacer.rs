//! Sleeping until an instant with the kernel's precision; the runtime's own timers are too coarse
//! to pace thousands of requests a second.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Arrivals closer together than this are released together.
const QUANTUM: Duration = Duration::from_micros(50);

/// A timer.
pub struct Pacer {
    timer: AsyncFd<OwnedFd>,
}

impl Pacer {
    /// A timer of the current runtime.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[allow(
            deprecated,
            reason = "unsound only for types that change their descriptor, which an OwnedFd does \
                      not; the replacement is an unsafe function"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self { timer })
    }

    /// Sleeps until `due`; returns at once if that is past.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn until(&self, due: Instant) -> io::Result<()> {
        let now = Instant::now();
        if due <= now {
            return Ok(());
        }
        let wait = (due - now).max(QUANTUM);
        let value =
            Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        let mut guard = self.timer.readable().await?;
        let mut expirations = [0; 8];
        // How often it expired does not matter, only that the readiness is used up.
        let _ = rustix::io::read(self.timer.get_ref(), &mut expirations);
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_wakes_soon_after_the_instant() {
        let pacer = Pacer::new().unwrap();
        for _ in 0..3 {
            let due = Instant::now() + Duration::from_millis(5);
            pacer.until(due).await.unwrap();
            let late = Instant::now().checked_duration_since(due).expect("not early");
            assert!(late < Duration::from_millis(500), "{late:?}");
        }
    }
}
