//! What every command is given: surroundings, terminal, and the flags that all share.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use compute::{Backend, DeviceConfig, Precision};
use data::{Findings, Level};
use hub::Models;
use text::Date;
use train::trainer::DataAccess;

use crate::command::quickstart;
use crate::environment::{Environment, thread_count};
use crate::error::{Failure, Result};
use crate::terminal::Terminal;
use crate::terminal::progress::Transfers;

/// Flags of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// Write JSON to standard output and human text to standard error
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,

    /// Compute threads [default: what the machine and its limits allow]
    #[arg(long, global = true, value_name = "N", help_heading = "Global options")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,

    /// Instruction set: portable, avx2, avx512, avx512bf16, amx or neon [default: the best there is]
    #[arg(long, global = true, value_name = "ISA", help_heading = "Global options")]
    #[arg(hide_possible_values = true, value_parser = ["portable", "avx2", "avx512", "avx512bf16", "amx", "neon"])]
    pub(crate) isa: Option<String>,

    /// Type that matrix products multiply in: bf16 or f32 [default: bf16]
    #[arg(long, global = true, value_name = "TYPE", help_heading = "Global options")]
    #[arg(hide_possible_values = true, value_parser = ["bf16", "f32"])]
    pub(crate) precision: Option<String>,

    /// Never touch the network
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) offline: bool,
}

/// What a command works with.
pub(crate) struct Context {
    /// Variables, folders, limits.
    pub(crate) environment: Environment,
    /// Where words go.
    pub(crate) terminal: Terminal,
    /// The shared flags.
    pub(crate) global: Global,
    /// Where models are looked for.
    hub: hub::Settings,
    /// Shows downloads and uploads.
    transfers: Transfers,
}

impl Context {
    pub(crate) fn new(environment: Environment, terminal: Terminal, global: Global) -> Self {
        let stand_ins = quickstart::stand_ins(&environment);
        let hub = hub::Settings { stand_ins, ..environment.hub() };
        let transfers = Transfers::new(terminal.clone());
        Context { environment, terminal, global, hub, transfers }
    }

    /// The finder of models.
    pub(crate) fn models(&self) -> Models<'_> {
        let Context { hub: settings, transfers: observer, global, .. } = self;
        Models { settings, observer, offline: global.offline }
    }

    /// Whether the network is forbidden.
    pub(crate) fn is_offline(&self) -> bool {
        self.global.offline || self.hub.offline
    }

    /// Number of threads to work with.
    pub(crate) fn threads(&self) -> usize {
        self.global.threads.map_or_else(thread_count, usize::from)
    }

    /// The device; `--precision` goes before what is asked for here.
    pub(crate) fn device(&self, precision: Precision) -> Result<Box<dyn Backend>> {
        let isa = self.global.isa.as_deref();
        let precision = self.global.precision.as_deref().map_or(precision, precision_of);
        let device = compute::open(DeviceConfig { threads: self.threads(), isa, precision });
        device.map_err(|error| Failure::wrong("device", error.to_string()))
    }

    /// How the rows of a recipe are come by.
    pub(crate) fn data_access(&self) -> DataAccess<'_> {
        let fetch = |set: &data::HubSet| {
            self.models().data_set(set).map_err(|error| {
                let Failure { message, hint, .. } = error.into();
                data::Error::Setting { key: "data".into(), message, hint }
            })
        };
        let cache = self.environment.prepared_cache();
        DataAccess { cache, fetch: Box::new(fetch), ..DataAccess::default() }
    }

    /// Warns of what is odd about the rows of a file that the user named.
    pub(crate) fn warn_of(&self, findings: &Findings) {
        for finding in findings.iter().filter(|finding| finding.level > Level::Note) {
            let place = finding.places.first().map_or(String::new(), |place| format!("{place}: "));
            let (message, count, hint) = (&finding.message, finding.count, &finding.hint);
            self.terminal.warn(&format!("{place}{message} ({count} rows); {hint}"));
        }
    }

    /// Today (UTC).
    pub(crate) fn today(&self) -> Date {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Date::from_unix(since.map_or(0, |since| since.as_secs()))
    }
}

/// The precision of a name in a recipe or on the command line; `auto` is bf16.
pub(crate) fn precision_of(name: &str) -> Precision {
    if name.eq_ignore_ascii_case("f32") { Precision::F32 } else { Precision::Bf16 }
}
