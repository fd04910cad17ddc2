//! Signals as flags that a loop looks at between two pieces of work. Before the first step a guard
//! ends the process after 0.6 s where no loop has looked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{Failure, Result};
use crate::terminal::Terminal;

/// What a person or a scheduler asked for by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal was closed, or its connection broke.
    HangUp,
    /// SIGUSR1: a scheduler is about to end the job.
    Save,
}

impl StopSignal {
    /// The exit code of a program that ended because of it.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            StopSignal::HangUp => 129,
            StopSignal::Interrupt => 130,
            StopSignal::Terminate | StopSignal::Save => 143,
        }
    }
}

/// The flags that signals raise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    interrupt: Arc<AtomicBool>,
    terminate: Arc<AtomicBool>,
    hang_up: Arc<AtomicBool>,
    save: Arc<AtomicBool>,
}

impl Signals {
    /// Takes over SIGINT, SIGTERM, SIGUSR1 and, unless `nohup` had it ignored, SIGHUP. While one of
    /// the first two is not answered, a second one ends the process at once.
    pub(crate) fn install() -> Result<Self> {
        let signals = Signals::default();
        signals.register().map_err(|error| {
            Failure::new("signals", format!("signals cannot be handled: {error}"))
        })?;
        Ok(signals)
    }

    #[cfg(unix)]
    fn register(&self) -> std::io::Result<()> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
        use signal_hook::flag::{register, register_conditional_shutdown};
        // In this order: the first signal finds the flag down and raises it.
        for (signal, asked, flag) in [
            (SIGINT, StopSignal::Interrupt, &self.interrupt),
            (SIGTERM, StopSignal::Terminate, &self.terminate),
        ] {
            let code = i32::from(asked.exit_code());
            register_conditional_shutdown(signal, code, Arc::clone(flag))?;
            register(signal, Arc::clone(flag))?;
        }
        register(SIGUSR1, Arc::clone(&self.save))?;
        if !is_ignored(SIGHUP) {
            register(SIGHUP, Arc::clone(&self.hang_up))?;
        }
        Ok(())
    }

    #[cfg(not(unix))]
    fn register(&self) -> std::io::Result<()> {
        use signal_hook::consts::SIGINT;
        use signal_hook::flag::{register, register_conditional_shutdown};
        let code = i32::from(StopSignal::Interrupt.exit_code());
        register_conditional_shutdown(SIGINT, code, Arc::clone(&self.interrupt))?;
        register(SIGINT, Arc::clone(&self.interrupt))?;
        Ok(())
    }

    /// What was asked for and not yet answered; the flag stays up.
    pub(crate) fn asked(&self) -> Option<StopSignal> {
        let up = |flag: &AtomicBool| flag.load(Ordering::SeqCst);
        match () {
            () if up(&self.interrupt) => Some(StopSignal::Interrupt),
            () if up(&self.terminate) => Some(StopSignal::Terminate),
            () if up(&self.hang_up) => Some(StopSignal::HangUp),
            () if up(&self.save) => Some(StopSignal::Save),
            () => None,
        }
    }

    /// Ends the process where a signal stays without an answer, until the guard is dropped: for work of which no
    /// part asks for signals, and after which nothing is left half done. `what` is said on the terminal then.
    pub(crate) fn guard(&self, terminal: Terminal, what: &'static str) -> Guard {
        let over = Arc::new(AtomicBool::new(false));
        let (signals, ended) = (self.clone(), Arc::clone(&over));
        std::thread::spawn(move || {
            let mut unanswered = Duration::ZERO;
            while !ended.load(Ordering::SeqCst) {
                std::thread::sleep(PAUSE);
                let Some(asked) = signals.asked() else { continue };
                unanswered += PAUSE;
                if unanswered >= GRACE && !ended.load(Ordering::SeqCst) {
                    say_and_exit(&terminal, what, asked);
                }
            }
        });
        Guard(over)
    }

    /// Whether SIGINT came; the flag goes down, so that the next one is a first one again.
    pub(crate) fn take_interrupt(&self) -> bool {
        self.interrupt.swap(false, Ordering::SeqCst)
    }
}

/// Makes a file that grows beyond `ulimit -f` an error of the write, and not the end of the process.
pub(crate) fn ignore_limits() {
    #[cfg(unix)]
    {
        use signal_hook::{consts::SIGXFSZ, flag::register};
        // Where that is impossible the system's own way stays: nothing half-written gets its name.
        register(SIGXFSZ, Arc::default()).ok();
    }
}

/// Whether a signal was ignored when the process began. Where the system does not tell, it is taken to
/// be: then `nohup` holds.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// How often the guard looks.
const PAUSE: Duration = Duration::from_millis(50);

/// How long the work itself has to answer.
const GRACE: Duration = Duration::from_millis(600);

/// See [`Signals::guard`].
#[must_use]
pub(crate) struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[allow(clippy::exit, reason = "the main thread is busy and cannot return")]
fn say_and_exit(terminal: &Terminal, what: &str, asked: StopSignal) -> ! {
    terminal.fail(&Failure::new("interrupted", what));
    std::process::exit(i32::from(asked.exit_code()));
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_signal_raises_its_flag() {
        let signals = Signals::install().unwrap();
        assert_eq!(signals.asked(), None);
        signal_hook::low_level::raise(signal_hook::consts::SIGUSR1).unwrap();
        assert_eq!(signals.asked(), Some(StopSignal::Save));
        signal_hook::low_level::raise(signal_hook::consts::SIGINT).unwrap();
        assert_eq!(signals.asked(), Some(StopSignal::Interrupt));
        assert!(signals.take_interrupt());
        assert_eq!(signals.asked(), Some(StopSignal::Save));
    }
}
