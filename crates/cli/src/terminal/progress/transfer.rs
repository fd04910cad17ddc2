//! Progress of files on their way from or to another machine.

use std::sync::Mutex;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::terminal::Terminal;
use crate::terminal::escape::escaped;
use crate::terminal::style::bytes;

/// Files of less than this come and go too fast to be worth a line.
const WORTH_A_LINE: u64 = 1 << 20;

/// Several files on their way: a bar for each and one for all of them.
pub(crate) struct Transfers {
    bars: Option<(MultiProgress, ProgressBar)>,
}

impl Transfers {
    /// Begins with `files` of so many bytes in all; `what` is what happens to them.
    pub(crate) fn new(terminal: &Terminal, what: &str, files: usize, total: u64) -> Self {
        if total < WORTH_A_LINE {
            return Transfers { bars: None };
        }
        if !terminal.is_live {
            let s = if files == 1 { "" } else { "s" };
            terminal.note(&format!("{what} {files} file{s}, {}", bytes(total)));
            return Transfers { bars: None };
        }
        let multi = MultiProgress::new();
        let bar = multi.add(bar(what.to_owned(), total));
        Transfers { bars: Some((multi, bar)) }
    }

    /// One of the files begins.
    pub(crate) fn file(&self, name: &str, size: u64) -> Transfer {
        let bars = self.bars.as_ref().map(|(multi, total)| {
            let own = (size >= WORTH_A_LINE).then(|| {
                let own = multi.insert_before(total, bar(escaped(name).into_owned(), size));
                own.reset_eta();
                own
            });
            (own, total.clone())
        });
        Transfer { bars, position: Mutex::new(0) }
    }
}

impl Drop for Transfers {
    fn drop(&mut self) {
        if let Some((multi, total)) = &self.bars {
            total.finish_and_clear();
            // A terminal that has gone away stops nothing.
            let _ = multi.clear();
        }
    }
}

fn bar(name: String, size: u64) -> ProgressBar {
    let template = "{bar:24.cyan/dim} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is right");
    ProgressBar::new(size).with_style(style.progress_chars("━╸─")).with_message(name)
}

/// A file on its way.
pub(crate) struct Transfer {
    bars: Option<(Option<ProgressBar>, ProgressBar)>,
    position: Mutex<u64>,
}

impl Transfer {
    /// So many bytes are there; fewer than before when some go again.
    pub(crate) fn set(&self, position: u64) {
        let mut so_far = self.position.lock().expect("nobody panics with it");
        self.go(so_far.abs_diff(position), position < *so_far);
        *so_far = position;
    }

    /// So many bytes more, or less.
    pub(crate) fn advance(&self, count: i64) {
        let mut so_far = self.position.lock().expect("nobody panics with it");
        self.go(count.unsigned_abs(), count < 0);
        *so_far = so_far.saturating_add_signed(count);
    }

    fn go(&self, distance: u64, back: bool) {
        let Some((own, total)) = &self.bars else { return };
        for bar in own.iter().chain([total]) {
            if back {
                bar.dec(distance);
            } else {
                bar.inc(distance);
            }
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some((Some(own), _)) = &self.bars {
            own.finish_and_clear();
        }
    }
}
