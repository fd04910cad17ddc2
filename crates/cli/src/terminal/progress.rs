//! Progress of a run and of files on their way.

mod narrator;
pub(crate) mod transfer;

use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use train::events::Event;

use super::Terminal;
use super::curve::sparkline;
use super::escape::escaped_but_colors;
use narrator::Narrator;
pub(crate) use transfer::Transfers;

/// Shows a run's events: a block that changes on a terminal, lines elsewhere.
pub(crate) struct Progress<'a> {
    terminal: &'a Terminal,
    narrator: Narrator,
    started: Instant,
    block: Option<Block>,
}

impl<'a> Progress<'a> {
    /// Progress of a run that begins now.
    pub(crate) fn new(terminal: &'a Terminal) -> Self {
        let block = (terminal.is_live && terminal.is_read_by_person()).then(Block::new);
        let narrator = Narrator::new(terminal.style, block.is_some());
        Progress { terminal, narrator, started: Instant::now(), block }
    }

    /// Takes in one event.
    pub(crate) fn event(&mut self, event: &Event) {
        let lines = self.narrator.lines(event, self.started.elapsed().as_secs_f64());
        match &self.block {
            Some(block) => {
                for line in lines {
                    // A terminal that has gone away stops no run.
                    let _ = block.multi.println(escaped_but_colors(&line));
                }
                block.show(&self.narrator);
            }
            None => lines.iter().for_each(|line| self.terminal.say(line)),
        }
        if self.terminal.is_json() {
            let value = serde_json::to_value(event).expect("events are JSON");
            self.terminal.event(&value);
        }
    }

    /// Takes the block away. Returns the loss of every step.
    pub(crate) fn finish(self) -> Vec<f64> {
        if let Some(block) = &self.block {
            let _ = block.multi.clear();
        }
        self.narrator.into_curve()
    }
}

/// Three lines at the foot of the terminal.
struct Block {
    multi: MultiProgress,
    bar: ProgressBar,
    figures: ProgressBar,
    curve: ProgressBar,
}

impl Block {
    fn new() -> Self {
        let multi = MultiProgress::new();
        let style = |template: &str| {
            let style = ProgressStyle::with_template(template).expect("the template is right");
            style.progress_chars("━╸─")
        };
        let line = |template: &str| multi.add(ProgressBar::new(1).with_style(style(template)));
        let bar = line("{bar:32.cyan/dim} {msg}");
        let (figures, curve) = (line("{wide_msg}"), line("{wide_msg}"));
        // Loading and tokenising come before the first event.
        bar.set_message("getting ready");
        Block { multi, bar, figures, curve }
    }

    fn show(&self, narrator: &Narrator) {
        self.bar.set_length(narrator.steps());
        self.bar.set_position(narrator.step());
        self.bar.set_message(narrator.place());
        self.figures.set_message(narrator.figures());
        let curve = sparkline(narrator.curve(), 48);
        self.curve.set_message(format!("{curve}  {}", narrator.validation()));
    }
}
