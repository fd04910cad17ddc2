//! What one process writes is its own: a lock beside it or within it, which the system releases when the
//! process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use text::Date;

use crate::run::is_device;
use crate::{Error, Result};

/// The lock of a folder, within it.
pub(crate) const LOCK: &str = ".lock";
/// How often a lock or folder that vanishes meanwhile is tried again.
const TRIES: usize = 100;

/// A file or folder that this process alone writes, until the claim is dropped.
///
/// A process that is killed leaves the lock file, but not the lock: nothing has to be cleaned up.
#[derive(Debug)]
pub struct Claim {
    /// Taken before the folders are removed.
    lock: Option<Lock>,
    /// Folders that were made for it, the innermost first. Those that stay empty are removed, unless
    /// another process asks for them at that moment.
    made: Vec<PathBuf>,
}

impl Claim {
    /// Claims a folder, which is made if it is not there.
    pub fn within(folder: &Path) -> Result<Claim> {
        Claim::take(folder, folder, LOCK)
    }

    /// Claims a file or folder that is written as a whole: the lock stands beside it. A device is not
    /// claimed.
    pub fn beside(path: &Path) -> Result<Claim> {
        if is_device(path) {
            return Ok(Claim { lock: None, made: Vec::new() });
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Claim::take(path, parent.unwrap_or(Path::new(".")), &format!(".{name}.lock"))
    }

    fn take(what: &Path, folder: &Path, name: &str) -> Result<Claim> {
        let mut claim = Claim { lock: None, made: Vec::new() };
        let mut attempt = 0;
        loop {
            let lock = claim.make(folder).and_then(|()| Lock::take(&folder.join(name), what));
            match lock {
                // Another process, which had made the folder too, has just removed it.
                Err(Error::Io { source, .. })
                    if source.kind() == ErrorKind::NotFound && attempt < TRIES =>
                {
                    attempt += 1;
                }
                lock => {
                    claim.lock = Some(lock?);
                    return Ok(claim);
                }
            }
        }
    }

    /// Makes a folder and those that it lies in.
    fn make(&mut self, folder: &Path) -> Result<()> {
        let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let missing: Vec<PathBuf> =
            folder.ancestors().take_while(is_missing).map(Path::to_owned).collect();
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        self.own(missing);
        Ok(())
    }

    /// Adds folders that go away if they stay empty, the innermost first.
    pub(crate) fn own(&mut self, folders: Vec<PathBuf>) {
        self.made.retain(|path| !folders.contains(path));
        self.made.extend(folders);
        self.made.sort_by_key(|path| std::cmp::Reverse(path.components().count()));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.lock = None;
        for folder in &self.made {
            // Only an empty folder can be removed so.
            fs::remove_dir(folder).ok();
        }
    }
}

/// A lock file that is held.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    file: File,
}

/// What a lock file says about the process that holds it.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: Option<String>,
    /// Seconds since 1970.
    since: u64,
}

impl Lock {
    /// Takes the lock `path`, which keeps others away from `what`.
    fn take(path: &Path, what: &Path) -> Result<Lock> {
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            let opened = options.read(true).write(true).create(true).truncate(false).open(path);
            let file = opened.map_err(Error::io(path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Busy { path: what.to_owned(), holder: holder(&file) });
                }
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    let message = "this file system has no locks: take a place on another disk";
                    return Err(Error::io(path)(std::io::Error::new(error.kind(), message)));
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(path)(error)),
            }
            let mut lock = Lock { path: path.to_owned(), file };
            // Whoever held it before may have removed the file while it was opened here.
            if lock.is_in_place() {
                lock.sign().map_err(Error::io(path))?;
                return Ok(lock);
            }
        }
        Err(Error::io(path)(ErrorKind::ResourceBusy.into()))
    }

    /// Whether the file that is locked is the one of that name.
    fn is_in_place(&self) -> bool {
        let same = |a: &fs::Metadata, b: &fs::Metadata| {
            #[cfg(unix)]
            {
                use std::os::unix::fs::MetadataExt as _;
                (a.dev(), a.ino()) == (b.dev(), b.ino())
            }
            #[cfg(not(unix))]
            {
                a.created().ok() == b.created().ok()
            }
        };
        let both = self.file.metadata().and_then(|held| Ok((held, fs::metadata(&self.path)?)));
        both.is_ok_and(|(held, named)| same(&held, &named))
    }

    /// Writes who holds it.
    fn sign(&mut self) -> std::io::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let holder = Holder {
            pid: std::process::id(),
            host: host(),
            since: since.map_or(0, |since| since.as_secs()),
        };
        let text = serde_json::to_string(&holder).expect("a holder is JSON");
        self.file.set_len(0)?;
        self.file.write_all(text.as_bytes())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still held: nobody else can have taken this file meanwhile.
        if self.is_in_place() {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// In words, the process that holds a lock.
fn holder(mut file: &File) -> String {
    let mut text = String::new();
    let read = file.read_to_string(&mut text).ok();
    match read.and_then(|_| serde_json::from_str::<Holder>(&text).ok()) {
        Some(Holder { pid, host: at, since }) => {
            let elsewhere = at.filter(|at| host().as_ref() != Some(at));
            let at = elsewhere.map_or_else(String::new, |at| format!(" on {at}"));
            let (hours, minutes) = (since / 3600 % 24, since / 60 % 60);
            let day = Date::from_unix(since);
            format!("process {pid}{at} since {day} {hours:02}:{minutes:02} UTC")
        }
        None => "another process".to_owned(),
    }
}

/// The name of this machine, which a lock on a shared disk has to tell.
fn host() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_claim_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let check = |claim: fn(&Path) -> Result<Claim>, name: &str| {
            let path = dir.path().join(name);
            let first = claim(&path).unwrap();
            let error = claim(&path).unwrap_err();
            let pid = std::process::id();
            assert!(error.to_string().contains(&format!("process {pid} since 20")), "{error}");
            assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
            drop(first);
            claim(&path).unwrap();
        };
        check(Claim::within, "a/b");
        check(Claim::beside, "rows.jsonl");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "something was left");
    }

    #[test]
    fn another_machine_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, r#"{"pid": 7, "host": "no-such-host", "since": 1700000000}"#).unwrap();
        let text = holder(&File::open(&path).unwrap());
        assert_eq!(text, "process 7 on no-such-host since 2023-11-14 22:13 UTC");
        fs::write(&path, "").unwrap();
        assert_eq!(holder(&File::open(&path).unwrap()), "another process");
    }

    #[test]
    fn what_a_kill_left_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK), "a long line of a process that was killed, long ago\n")
            .unwrap();
        let claim = Claim::within(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(LOCK)).unwrap();
        serde_json::from_str::<Holder>(&text).unwrap();
        drop(claim);
        assert!(dir.path().is_dir() && !dir.path().join(LOCK).exists());
    }

    #[test]
    fn many_threads_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, held) = (dir.path().join("x/y"), std::sync::atomic::AtomicUsize::new(0));
        let turn = || {
            let mut got = 0;
            while got < 20 {
                match Claim::within(&folder) {
                    Ok(_claim) => {
                        let before = held.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(before, 0, "two hold it");
                        std::thread::yield_now();
                        held.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        got += 1;
                    }
                    Err(Error::Busy { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(turn))));
        assert!(!folder.join(LOCK).exists());
    }
}
