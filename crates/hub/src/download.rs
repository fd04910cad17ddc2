//! Files from the hub: resumed where they broke off, checked, and then put in place.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use ureq::Body;
use ureq::http::Response;

use super::http::{Client, Trouble};
use super::parallel::Halt;
use super::refusal::Refusal;
use crate::digest::Sum;
use crate::error::{Error, Result};
use crate::event::Transfer;

/// How often a transfer is taken up again that did not get any further.
const ATTEMPTS: u32 = 5;

/// A file on the hub.
pub(crate) struct Remote<'a> {
    pub(crate) url: &'a str,
    /// The model or data set that it belongs to.
    pub(crate) repo: &'a str,
    pub(crate) name: &'a str,
    pub(crate) size: Option<u64>,
    pub(crate) sum: Option<&'a Sum>,
}

/// A file on its way here.
pub(crate) struct Download<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) remote: &'a Remote<'a>,
    pub(crate) bar: &'a Transfer<'a>,
    pub(crate) halt: &'a Halt,
    /// Explains a refusal of the hub.
    pub(crate) explain: &'a (dyn Fn(Trouble) -> Error + Sync),
}

/// How an attempt ended.
enum Ended {
    Whole,
    BrokeOff(String),
    /// Not a byte that came can be trusted.
    Spoilt(String),
}

impl Download<'_> {
    /// Brings the file to `target`, unless it is there. The caller holds its lock.
    pub(crate) fn fetch(&self, target: &Path) -> Result<()> {
        if target.exists() {
            return Ok(());
        }
        let folder = target.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(|error| disk(folder, error))?;
        let part = incomplete(target);
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).open(&part);
        let file = file.map_err(|error| disk(&part, error))?;
        let mut work = Part { download: self, file, path: part, done: 0, etag: None };
        work.begin()?;
        work.carry_out()?;
        let Part { file, path, .. } = work;
        file.sync_all().map_err(|error| disk(&path, error))?;
        drop(file);
        fs::rename(&path, target).map_err(|error| disk(target, error))
    }

    fn broke_off(&self, why: &str) -> Error {
        let Remote { repo, name, .. } = self.remote;
        let message = format!("{repo}: `{name}` broke off: {why}");
        Error::new("hub", message).hint("run the command again: it resumes where it stopped")
    }
}

/// Where a file stands until it is whole; other tools of the hub call it so too.
fn incomplete(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(".incomplete");
    path.into()
}

/// What the disk does not do, with the cure where there is one.
fn disk(path: &Path, error: std::io::Error) -> Error {
    let kind = error.kind();
    let failure = Error::io(path, error);
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => failure.hint(
            "make room, or set `HF_HOME` to a folder on another disk; the partial download is \
             kept and will be resumed",
        ),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            failure.hint("set `HF_HOME` to a folder that you may write to")
        }
        _ => failure,
    }
}

/// The part of a file that has come.
struct Part<'a> {
    download: &'a Download<'a>,
    file: File,
    path: PathBuf,
    done: u64,
    /// Which content it is a part of, in the server's words.
    etag: Option<String>,
}

impl Part<'_> {
    /// Finds what an earlier process has left.
    fn begin(&mut self) -> Result<()> {
        let length = self.file.metadata().map_err(|error| disk(&self.path, error))?.len();
        self.done = length;
        let Remote { size, sum, .. } = *self.download.remote;
        // Without a checksum nobody knows what it is a part of.
        if sum.is_none() || size.is_some_and(|size| length > size) {
            self.restart()?;
        }
        self.download.bar.set(self.done);
        Ok(())
    }

    /// Asks until the file is whole, as long as each attempt brings something.
    fn carry_out(&mut self) -> Result<()> {
        let mut in_vain = 0;
        let mut was_spoilt = false;
        loop {
            let before = self.done;
            let why = match self.attempt()? {
                Ended::Whole => return Ok(()),
                Ended::BrokeOff(why) => why,
                Ended::Spoilt(why) => {
                    self.restart()?;
                    // What an earlier process left may be to blame, but only once.
                    if std::mem::replace(&mut was_spoilt, true) {
                        return Err(self.download.broke_off(&why));
                    }
                    why
                }
            };
            if self.done > before {
                in_vain = 0;
            } else {
                in_vain += 1;
            }
            if in_vain == ATTEMPTS || self.download.halt.load(Ordering::Relaxed) {
                return Err(self.download.broke_off(&why));
            }
            self.download.client.back_off(in_vain);
        }
    }

    fn attempt(&mut self) -> Result<Ended> {
        let size = self.download.remote.size;
        let size = match size {
            Some(size) if self.done == size => Some(size),
            _ => match self.receive()? {
                Ok(size) => size,
                Err(why) => return Ok(Ended::BrokeOff(why)),
            },
        };
        if let Some(size) = size.filter(|&size| self.done != size) {
            let why = format!("{} of {size} bytes came", self.done);
            return Ok(if self.done < size { Ended::BrokeOff(why) } else { Ended::Spoilt(why) });
        }
        let Some(sum) = self.download.remote.sum else { return Ok(Ended::Whole) };
        Ok(sum.mismatch(&self.path)?.map_or(Ended::Whole, Ended::Spoilt))
    }

    /// Takes in what comes from one request. Returns the size that the file should have, or
    /// why the transfer ended before.
    fn receive(&mut self) -> Result<std::result::Result<Option<u64>, String>> {
        let response = match self.ask() {
            Ok(response) => response,
            Err(Trouble::Network(why)) if self.done > 0 => return Ok(Err(why)),
            // What there is of it is more than all of it: from the start again.
            Err(Trouble::Refused(Refusal { status: 416, .. })) if self.done > 0 => {
                self.restart()?;
                return Ok(Err("the part here does not fit the file".to_owned()));
            }
            Err(trouble) => return Err((self.download.explain)(trouble)),
        };
        let length = header(&response, "content-length").and_then(|length| length.parse().ok());
        let total = match response.status().as_u16() {
            206 => match Range::of(&response) {
                Some(range) if range.from == self.done => range.total,
                _ => {
                    self.restart()?;
                    return Ok(Err("another part came than was asked for".to_owned()));
                }
            },
            _ => {
                self.restart()?;
                length
            }
        };
        self.etag =
            header(&response, "etag").filter(|tag| !tag.starts_with("W/")).map(str::to_owned);
        let size = self.download.remote.size.or(total);
        Ok(self.take(response)?.map_or(Ok(size), Err))
    }

    fn ask(&self) -> super::http::Answer {
        let mut headers = vec![("accept-encoding", "identity".to_owned())];
        if self.done > 0 {
            headers.push(("range", format!("bytes={}-", self.done)));
            if let Some(etag) = &self.etag {
                headers.push(("if-range", etag.clone()));
            }
        }
        self.download.client.get(self.download.remote.url, headers)
    }

    /// Writes down what comes. Returns why it ended too soon.
    fn take(&mut self, response: Response<Body>) -> Result<Option<String>> {
        let mut reader = response.into_body().into_reader();
        let mut chunk = vec![0; 1 << 16];
        loop {
            if self.download.halt.load(Ordering::Relaxed) {
                return Ok(Some("another file failed".to_owned()));
            }
            let count = match reader.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => count,
                Err(error) => return Ok(Some(error.to_string())),
            };
            self.file.write_all(&chunk[..count]).map_err(|error| disk(&self.path, error))?;
            self.done += count as u64;
            self.download.bar.advance(count as i64);
        }
    }

    fn restart(&mut self) -> Result<()> {
        if self.done > 0 {
            self.file.set_len(0).map_err(|error| disk(&self.path, error))?;
        }
        self.done = 0;
        self.download.bar.set(0);
        Ok(())
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// `Content-Range: bytes FROM-TO/TOTAL`.
struct Range {
    from: u64,
    total: Option<u64>,
}

impl Range {
    fn of(response: &Response<Body>) -> Option<Self> {
        let (range, total) =
            header(response, "content-range")?.strip_prefix("bytes ")?.split_once('/')?;
        let from = range.split_once('-')?.0.trim().parse().ok()?;
        Some(Range { from, total: total.trim().parse().ok() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_refuses_has_a_cure() {
        let check = |kind: ErrorKind, hint: Option<&str>| {
            let failure = disk(Path::new("/x"), kind.into());
            let found = failure.hint.unwrap_or_default();
            assert!(found.contains(hint.unwrap_or("")), "{found}");
            assert_eq!(found.is_empty(), hint.is_none());
        };
        check(ErrorKind::StorageFull, Some("another disk"));
        check(ErrorKind::PermissionDenied, Some("may write"));
        check(ErrorKind::NotADirectory, None);
    }
}
