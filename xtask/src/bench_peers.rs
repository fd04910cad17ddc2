//! Tunesmith beside its peers: one machine, one sitting, sides alternating, medians, ratios.
//!
//! Every run is a process of its own. Peers warm up before they are timed, Tunesmith's training
//! does not; loading, tokenising and compiling are nobody's time but that of a cold start. Tokens
//! of decoding are those after the first, which comes out of the prompt.

mod arguments;
mod commands;
mod comparisons;
mod contest;
mod figures;
mod instructions;
mod machine;
mod plots;
mod report;
mod runner;
mod scaling;
mod setup;
mod table;

use std::io::Write as _;
use std::time::Duration;

pub(crate) use arguments::Arguments;
use commands::Commands;
use contest::{Candidate, Run};
use figures::{Figures, Unit};
use machine::Machine;
use report::Report;
use setup::Place;

/// Measures, prints tables and ratios, and keeps them in the folder.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let binary = &arguments.tunesmith;
    if !binary.is_file() {
        let path = binary.display();
        return Err(format!("{path}: there is no such binary\nhint: `cargo build --release`"));
    }
    if let Some(folder) = &arguments.plots {
        return scaling::draw(arguments, folder);
    }
    let place = Place::prepare(arguments)?;
    place.put_earlier_results_aside()?;
    let machine = Machine::look();
    let mut report = Report::new(arguments, machine.clone());
    println!("{}", report.heading());
    // One process that runs is company enough to be seen in a figure.
    if let Some(load) = machine::load().filter(|&load| load > 0.5) {
        println!("note: the machine is busy (load {load}); figures mean little beside other work");
    }
    let commands = Commands { arguments, place: &place, machine: &machine };
    let mut runner = Runner { variables: place.variables(arguments.threads) };
    for &part in &arguments.only {
        let held = match comparisons::of(part, &commands) {
            Ok(held) => held,
            Err(why) => {
                println!("\n{}: skipped: {why}", part.name());
                report.skip(part, why);
                continue;
            }
        };
        for comparison in held {
            println!("\n{}: {}", part.name(), comparison.title);
            let held = comparison.hold(arguments.rounds, &mut runner);
            print!("\n{}", table::text(&held));
            report.add(held);
            // After every comparison: a sitting takes long, and may be ended early.
            report.write(&place.results())?;
        }
    }
    report.write(&place.results())?;
    println!("\n{}", report.markdown());
    println!("\nkept in {}", place.results().display());
    Ok(())
}

/// Runs processes, and tells about each of them.
struct Runner {
    variables: Vec<(&'static str, String)>,
}

impl Run for Runner {
    fn run(
        &mut self,
        side: &str,
        candidate: &Candidate,
        unit: Unit,
        limit: Duration,
    ) -> Result<Figures, String> {
        print!("  {side} ({}): ", candidate.configuration);
        // Only the look of it depends on this.
        let _ = std::io::stdout().flush();
        let output = runner::run(&candidate.invocation, &self.variables, limit);
        let figures = output.and_then(|output| candidate.reading.of(output));
        match &figures {
            Ok(figures) => println!("{}", table::run(figures, unit)),
            Err(why) => println!("{why}"),
        }
        figures
    }
}

/// The lines on this chore for those who ask.
pub(crate) const USAGE: &str = arguments::USAGE;
