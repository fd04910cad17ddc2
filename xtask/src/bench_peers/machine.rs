//! What a figure depends on and no recipe says: machine, day, commit.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Flags of a processor that decide how fast it multiplies.
const TELLING_FLAGS: [&str; 7] =
    ["avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "i8mm"];

/// Flags of processors that multiply bf16.
const BF16_FLAGS: [&str; 3] = ["avx512_bf16", "amx_bf16", "bf16"];

/// The machine, as far as Linux tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    /// Name of the processor.
    pub(super) model: String,
    /// Cores that can be used.
    pub(super) cores: usize,
    /// Those of [`TELLING_FLAGS`] that it has.
    pub(super) flags: Vec<&'static str>,
    /// Memory in all.
    pub(super) memory_bytes: Option<u64>,
}

impl Machine {
    /// Looks at `/proc`.
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Machine::from_proc(&read("/proc/cpuinfo"), &read("/proc/meminfo"))
    }

    fn from_proc(cpuinfo: &str, meminfo: &str) -> Self {
        let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features"));
        let has = |flag: &&str| flags.unwrap_or_default().split(' ').any(|found| found == *flag);
        let memory = field(meminfo, "MemTotal").and_then(|total| total.strip_suffix(" kB"));
        Machine {
            model: field(cpuinfo, "model name").unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            flags: TELLING_FLAGS.into_iter().filter(has).collect(),
            memory_bytes: memory.and_then(|kib| kib.parse::<u64>().ok()).map(|kib| kib << 10),
        }
    }

    /// Whether it has instructions for bf16; without them PyTorch's bf16 is slow.
    pub(super) fn multiplies_bf16(&self) -> bool {
        self.flags.iter().any(|flag| BF16_FLAGS.contains(flag))
    }

    /// In a few words.
    pub(super) fn shown(&self) -> String {
        let mut words = vec![format!("{} cores", self.cores), self.model.clone()];
        words.extend(self.flags.iter().map(|&flag| flag.to_owned()));
        let gb = |bytes: u64| format!("{:.0} GB", bytes as f64 / (1u64 << 30) as f64);
        words.extend(self.memory_bytes.map(gb));
        words.join(", ")
    }

    /// For the record.
    pub(super) fn to_json(&self) -> Value {
        let Machine { model, cores, flags, memory_bytes } = self;
        json!({"cpu": model, "cores": cores, "flags": flags, "memory_bytes": memory_bytes})
    }
}

/// The first value of a key in a file of `/proc`.
pub(super) fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(found, _)| found.trim() == key).map(|(_, value)| value.trim())
}

/// Processes that ran or waited to, on average over the last minute.
pub(super) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Today (UTC).
pub(super) fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    text::Date::from_unix(since.map_or(0, |since| since.as_secs())).to_string()
}

/// The commit of the workspace, with a `+` where files have changed since.
pub(super) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").current_dir(crate::root()).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    if changed.is_none_or(|files| files.is_empty()) { hash } else { hash + "+" }
}

/// What a program says to `--version`.
pub(super) fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_known_by_name_and_flags() {
        let cpuinfo = "processor\t: 0\nmodel name\t: A B\nflags\t\t: fpu avx2 avx512_bf16 sse\n";
        let machine = Machine::from_proc(cpuinfo, "MemTotal:       25165824 kB\n");
        assert_eq!(machine.model, "A B");
        assert_eq!(machine.flags, ["avx2", "avx512_bf16"]);
        assert!(machine.multiplies_bf16());
        assert!(machine.shown().ends_with("cores, A B, avx2, avx512_bf16, 24 GB"));
        let old = Machine::from_proc("flags : avx avx2\n", "");
        assert!(!old.multiplies_bf16());
        assert_eq!(old.memory_bytes, None);
    }
}
