//! Progress of files on their way from or to the hub.

use std::collections::BTreeMap;
use std::sync::Mutex;

use hub::{Direction, Event, Observer};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::terminal::Terminal;
use crate::terminal::escape::escaped;
use crate::terminal::style::bytes;

/// Files of less than this come and go too fast to be worth a line.
const WORTH_A_LINE: u64 = 1 << 20;

/// Shows what the hub tells: sentences, and a bar for each file and for all of them.
pub(crate) struct Transfers {
    terminal: Terminal,
    bars: Mutex<Option<Bars>>,
}

/// The bars of a group of files.
struct Bars {
    multi: MultiProgress,
    total: ProgressBar,
    files: BTreeMap<usize, ProgressBar>,
}

impl Transfers {
    pub(crate) fn new(terminal: Terminal) -> Self {
        Transfers { terminal, bars: Mutex::default() }
    }

    fn begin(&self, direction: Direction, files: usize, total: u64) -> Option<Bars> {
        let verb = match direction {
            Direction::Download => "downloading",
            Direction::Upload => "uploading",
        };
        let s = if files == 1 { "" } else { "s" };
        let total = self::bar(&self.terminal, &format!("{verb} {files} file{s}"), total);
        let multi = MultiProgress::new();
        (!total.is_hidden()).then(|| Bars {
            total: multi.add(total),
            multi,
            files: BTreeMap::new(),
        })
    }
}

impl Observer for Transfers {
    fn hear(&self, event: Event<'_>) {
        match event {
            Event::Note(text) => return self.terminal.note(text),
            Event::Warning(text) => return self.terminal.warn(text),
            _ => {}
        }
        let mut bars = self.bars.lock().expect("nobody panics with it");
        match (event, &mut *bars) {
            (Event::Begin { direction, files, bytes }, bars) => {
                *bars = self.begin(direction, files, bytes);
            }
            (Event::End, bars) => {
                if let Some(bars) = bars.take() {
                    bars.total.finish_and_clear();
                    // A terminal that has gone away stops nothing.
                    let _ = bars.multi.clear();
                }
            }
            (event, Some(bars)) => bars.hear(event),
            (_, None) => {}
        }
    }
}

impl Bars {
    fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::FileBegin { file, name, bytes } if bytes >= WORTH_A_LINE => {
                let own =
                    self.multi.insert_before(&self.total, shown(escaped(name).into_owned(), bytes));
                own.reset_eta();
                self.files.insert(file, own);
            }
            Event::Moved { file, bytes } => {
                for bar in self.files.get(&file).into_iter().chain([&self.total]) {
                    match bytes {
                        0.. => bar.inc(bytes.unsigned_abs()),
                        _ => bar.dec(bytes.unsigned_abs()),
                    }
                }
            }
            Event::FileEnd { file } => {
                if let Some(own) = self.files.remove(&file) {
                    own.finish_and_clear();
                }
            }
            _ => {}
        }
    }
}

/// A bar for work on so many bytes; hidden where it would be gone at once, and a sentence where no bar can be shown.
pub(crate) fn bar(terminal: &Terminal, what: &str, total: u64) -> ProgressBar {
    if total >= WORTH_A_LINE && terminal.is_live {
        return shown(what.to_owned(), total);
    }
    if total >= WORTH_A_LINE {
        terminal.note(&format!("{what}, {}", bytes(total)));
    }
    ProgressBar::hidden()
}

fn shown(name: String, size: u64) -> ProgressBar {
    let template = "{bar:24.cyan/dim} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left  {msg}";
    let style = ProgressStyle::with_template(template).expect("the template is right");
    ProgressBar::new(size).with_style(style.progress_chars("━╸─")).with_message(name)
}
