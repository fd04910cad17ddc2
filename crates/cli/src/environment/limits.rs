//! How much of the machine the process may use.

use std::fs;
use std::path::Path;

/// Compute threads when nobody says how many: what scheduler, affinity and control group allow.
pub(crate) fn thread_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes that the process may still take: what the machine has free, within its control groups and the limits
/// of the process itself (`ulimit -v`, `ulimit -d`). Ask after files are mapped, for those count in `-v`.
///
/// None where the system does not say.
pub(crate) fn memory_limit() -> Option<usize> {
    limit_under(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// Most bytes of memory that the process has held so far.
pub(crate) fn peak_memory() -> Option<usize> {
    field_bytes(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Forgets the most that the process held before, where the system lets it.
pub(crate) fn reset_peak_memory() {
    // 5 sets the peak to what is held now (proc(5)); without it the peak is of the whole process.
    fs::write("/proc/self/clear_refs", "5").ok();
}

/// Bytes of memory that the process holds now; 0 where the system does not say.
pub(crate) fn resident_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    field_bytes(&status, "VmRSS:").unwrap_or(0)
}

fn limit_under(proc: &Path, cgroup: &Path) -> Option<usize> {
    let meminfo = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    let free = field_bytes(&meminfo, "MemAvailable:").or(field_bytes(&meminfo, "MemTotal:"));
    let groups = fs::read_to_string(proc.join("self/cgroup")).unwrap_or_default();
    let allowed = groups.lines().filter_map(|line| group_limit(line, cgroup)).min();
    [free, allowed, process_limit(proc)].into_iter().flatten().min()
}

/// What the limits of the process leave to it: `RLIMIT_AS` and `RLIMIT_DATA`.
fn process_limit(proc: &Path) -> Option<usize> {
    let limits = fs::read_to_string(proc.join("self/limits")).ok()?;
    let status = fs::read_to_string(proc.join("self/status")).unwrap_or_default();
    let left = |limit: &str, held: &str| -> Option<usize> {
        // `Max address space  <soft>  <hard>  bytes`, each a number or `unlimited`.
        let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        let soft: usize = line.split_whitespace().next()?.parse().ok()?;
        Some(soft.saturating_sub(field_bytes(&status, held).unwrap_or(0)))
    };
    [left("Max address space", "VmSize:"), left("Max data size", "VmData:")]
        .into_iter()
        .flatten()
        .min()
}

/// A line such as `MemTotal:  1024 kB`.
fn field_bytes(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// What a line of `/proc/self/cgroup`, `id:controllers:path`, leaves to the process.
///
/// Version 2 has no controllers in the line; version 1 has a tree for memory. Every
/// group up to the root limits those below it.
fn group_limit(line: &str, cgroup: &Path) -> Option<usize> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let path = Path::new(path.trim_start_matches('/'));
    let (root, limit, used) = match controllers {
        "" => (cgroup.to_owned(), "memory.max", "memory.current"),
        list if list.split(',').any(|name| name == "memory") => {
            (cgroup.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
        }
        _ => return None,
    };
    let number = |folder: &Path, name: &str| -> Option<usize> {
        fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
    };
    // Inside a container the path of the host may not exist: the root is then the own group.
    let left = path.ancestors().filter_map(|path| {
        let folder = root.join(path);
        let limit = number(&folder, limit)?;
        let used = number(&folder, used).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(cached(&folder))))
    });
    left.min()
}

/// Bytes that count as used but are given back when asked for: pages of files.
fn cached(folder: &Path) -> usize {
    let Ok(text) = fs::read_to_string(folder.join("memory.stat")) else { return 0 };
    let names = ["total_inactive_file ", "inactive_file "];
    let find = |name| text.lines().find_map(|line: &str| line.strip_prefix(name)?.parse().ok());
    names.into_iter().find_map(find).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: Option<usize>) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(limit_under(&dir.path().join("proc"), &dir.path().join("cgroup")), expected);
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  8000 kB\nMemAvailable:  4000 kB\n");

    #[test]
    fn the_machine_limits_where_no_group_does() {
        check(&[], None);
        check(&[MEMINFO], Some(4_096_000));
        check(
            &[MEMINFO, ("proc/self/cgroup", "0::/a\n"), ("cgroup/a/memory.max", "max\n")],
            Some(4_096_000),
        );
    }

    #[test]
    fn version_2_counts_every_group_above() {
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let above = ("cgroup/a/memory.max", "1000000\n");
        let own = ("cgroup/a/b/memory.max", "2000000\n");
        check(&[MEMINFO, group, above, own], Some(1_000_000));
        let used = ("cgroup/a/memory.current", "300000\n");
        let stat = ("cgroup/a/memory.stat", "anon 1\ninactive_file 100000\n");
        check(&[MEMINFO, group, above, own, used, stat], Some(800_000));
    }

    #[test]
    fn version_1_has_a_tree_for_memory() {
        let group = ("proc/self/cgroup", "9:cpu:/x\n4:memory:/a\n0::/\n");
        check(
            &[MEMINFO, group, ("cgroup/memory/a/memory.limit_in_bytes", "500000")],
            Some(500_000),
        );
        // In a container the host's path is not there.
        check(&[MEMINFO, group, ("cgroup/memory/memory.limit_in_bytes", "600000")], Some(600_000));
    }

    #[test]
    fn limits_of_the_process_count_what_it_holds() {
        let limits = |space: &str, data: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max data size             {data}               unlimited            bytes     \n\
                 Max resident set          1                    1                    bytes     \n\
                 Max address space         {space}              unlimited            bytes     \n"
            )
        };
        let check = |space: &str, data: &str, expected: usize| {
            let limits = limits(space, data);
            let status = "VmSize:\t    1000 kB\nVmData:\t     500 kB\n";
            let files = [("proc/self/limits", limits.as_str()), ("proc/self/status", status)];
            check(&[MEMINFO, files[0], files[1]], Some(expected));
            // Where the machine says nothing, the process's own limits still count.
            let own = Some(expected).filter(|_| space != "unlimited" || data != "unlimited");
            super::tests::check(&files, own);
        };
        check("unlimited", "unlimited", 4_096_000);
        check("3072000", "unlimited", 3_072_000 - 1_024_000);
        check("3072000", "1024000", 1_024_000 - 512_000);
        check("1000", "unlimited", 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_something() {
        assert!(memory_limit().is_some_and(|bytes| bytes > 1 << 20));
        assert!(peak_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(thread_count() >= 1);
    }
}
