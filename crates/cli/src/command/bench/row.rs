//! One figure of the table.

use serde_json::{Value, json};

use super::machine::Machine;
use crate::terminal::Terminal;
use crate::terminal::style::bytes;
use crate::terminal::table::table;

/// What was measured of something.
#[derive(Clone, Debug, Default)]
pub(super) struct Row {
    /// The part of `--only` that it belongs to.
    pub(super) part: String,
    /// What it is.
    pub(super) name: String,
    /// Median of one repetition.
    pub(super) seconds: f64,
    /// Tokens in that time, where there are tokens.
    pub(super) tokens: Option<f64>,
    /// Rows, answers or pairs in that time, and what they are called.
    pub(super) rows: Option<(f64, &'static str)>,
    /// Useful floating point operations in that time.
    pub(super) work: Option<f64>,
    /// Bytes of weights and cache that have to be read in that time.
    pub(super) bytes: Option<f64>,
    /// Most memory that the process held, loading included.
    pub(super) peak_host_bytes: Option<usize>,
    /// What is said beside this, for programs.
    pub(super) more: Vec<(&'static str, Value)>,
}

impl Row {
    fn flops(&self) -> Option<f64> {
        self.work.map(|work| work / self.seconds)
    }

    fn peak_share(&self, machine: &Machine) -> Option<f64> {
        self.flops().map(|flops| flops / machine.peak_flops)
    }

    fn read_share(&self, machine: &Machine) -> Option<f64> {
        self.bytes.map(|bytes| bytes / self.seconds / machine.read_bytes_per_s)
    }

    pub(super) fn to_json(&self, machine: &Machine) -> Value {
        let mut json = json!({
            "part": self.part,
            "name": self.name,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens.map(|tokens| tokens / self.seconds),
            "flops": self.flops(),
            "peak_share": self.peak_share(machine),
            "read_share": self.read_share(machine),
            "peak_host_bytes": self.peak_host_bytes,
        });
        if let Some((rows, called)) = self.rows {
            json["rows_per_s"] = json!(rows / self.seconds);
            json[format!("{called}_per_s")] = json!(rows / self.seconds);
        }
        for (key, value) in &self.more {
            json[*key] = value.clone();
        }
        json
    }

    fn cells(&self, machine: &Machine) -> Vec<String> {
        let cell = |value: Option<String>| value.unwrap_or_default();
        let share = |share: f64| format!("{:.0} %", 100.0 * share);
        vec![
            self.name.clone(),
            time(self.seconds),
            cell(self.tokens.map(|tokens| format!("{:.1}", tokens / self.seconds))),
            cell(self.rows.map(|(rows, called)| format!("{:.2} {called}", rows / self.seconds))),
            cell(self.flops().map(|flops| format!("{:.1}", flops * 1e-9))),
            cell(self.peak_share(machine).map(share)),
            cell(self.read_share(machine).map(share)),
            cell(self.peak_host_bytes.map(|peak| bytes(peak as u64))),
        ]
    }
}

/// Seconds in the unit that suits them.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s if s < 1.0 => format!("{:.2} ms", s * 1e3),
        s => format!("{s:.3} s"),
    }
}

/// All rows as a table.
pub(super) fn tell(rows: &[Row], machine: &Machine, terminal: &Terminal) {
    let head = ["", "time", "tokens/s", "rows/s", "GFLOP/s", "of peak", "of read", "peak memory"];
    let mut cells = vec![head.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| row.cells(machine)));
    terminal.say(table(&cells).trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_machine() {
        let device = compute::Device { kind: "cpu", isa: "avx2", threads: 2 };
        let machine =
            Machine { device, peak_flops: 100.0, read_bytes_per_s: 10.0, copy_bytes_per_s: 5.0 };
        let row = Row {
            name: "x".into(),
            seconds: 2.0,
            tokens: Some(8.0),
            rows: Some((4.0, "pairs")),
            work: Some(100.0),
            bytes: Some(5.0),
            more: vec![("shared", 7.into())],
            ..Row::default()
        };
        let json = row.to_json(&machine);
        assert_eq!((&json["tokens_per_s"], &json["flops"]), (&4.0.into(), &50.0.into()));
        assert_eq!((&json["peak_share"], &json["read_share"]), (&0.5.into(), &0.25.into()));
        assert_eq!((&json["pairs_per_s"], &json["rows_per_s"]), (&2.0.into(), &2.0.into()));
        assert_eq!(json["shared"], 7);
        assert!(json["peak_host_bytes"].is_null());
    }
}
