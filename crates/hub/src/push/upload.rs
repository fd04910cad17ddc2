//! Large files on their way to wherever the hub keeps them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use super::Push;
use super::folder::LocalFile;
use crate::error::{Error, Result};
use crate::event::{Direction, Transfer, Transfers};
use crate::http::{Answer, Ask, FilePart, Sent, Trouble};
use crate::id::quote;
use crate::parallel::{self, Halt};

/// Files that the hub is asked about at a time.
const BATCH: usize = 256;
/// The bytes by which the hub tells text from data.
const SAMPLE: u64 = 512;
const LFS_JSON: &str = "application/vnd.git-lfs+json";

/// What became of the files of a folder; numbers are places in its list.
pub(super) struct State {
    /// Files that the hub does not have in this form, for the commit.
    pub(super) new: Vec<New>,
    /// Files that the repository's `.gitignore` keeps out.
    pub(super) ignored: Vec<usize>,
}

/// A file for the commit.
pub(super) struct New {
    pub(super) index: usize,
    /// Its SHA-256, where it is stored apart from the commit.
    pub(super) sha256: Option<String>,
}

/// What the hub wants to do with a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
    /// The checksum of the file of that name which is there.
    oid: Option<String>,
}

/// What is to be done with a large file.
#[derive(Deserialize)]
struct Object {
    oid: String,
    /// None where the hub has the content already.
    actions: Option<Actions>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

/// An address and the headers that belong to it.
#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

impl Push<'_> {
    /// Sends the large files that the hub does not have.
    pub(super) fn upload(&self, files: &[LocalFile]) -> Result<State> {
        let state = self.sort(files)?;
        let large: Vec<(&LocalFile, &str)> = state
            .new
            .iter()
            .filter_map(|new| Some((&files[new.index], new.sha256.as_deref()?)))
            .collect();
        for batch in large.chunks(BATCH) {
            self.send_batch(batch)?;
        }
        Ok(state)
    }

    /// Asks which files are large, which are there already, and which are not wanted.
    fn sort(&self, files: &[LocalFile]) -> Result<State> {
        let mut state = State { new: Vec::new(), ignored: Vec::new() };
        let places: Vec<usize> = (0..files.len()).collect();
        for batch in places.chunks(BATCH) {
            let modes =
                self.modes(&batch.iter().map(|&index| &files[index]).collect::<Vec<_>>())?;
            for &index in batch {
                let file = &files[index];
                let mode = modes.iter().find(|mode| mode.path == file.name).ok_or_else(|| {
                    self.not_understood(&format!("it does not say what to do with {}", file.name))
                })?;
                // An object store takes no empty files.
                let is_large = mode.upload_mode == "lfs" && file.size > 0 && !file.is_rewritten();
                let sum = if is_large { file.sha256()? } else { file.git_blob()? };
                if mode.should_ignore {
                    state.ignored.push(index);
                } else if mode.oid.as_ref() != Some(&sum) {
                    state.new.push(New { index, sha256: is_large.then_some(sum) });
                }
            }
        }
        Ok(state)
    }

    fn modes(&self, files: &[&LocalFile]) -> Result<Vec<Mode>> {
        #[derive(Deserialize)]
        struct Modes {
            files: Vec<Mode>,
        }
        let describe = |file: &&LocalFile| -> Result<Value> {
            let sample = STANDARD.encode(file.start(SAMPLE)?);
            Ok(json!({"path": file.name, "sample": sample, "size": file.size}))
        };
        let files: Vec<Value> = files.iter().map(describe).collect::<Result<_>>()?;
        let url = self.api(&format!("/preupload/{}", quote(&self.id.revision)));
        let modes: Modes = self.json(self.client.post(&url, &json!({"files": files})))?;
        Ok(modes.files)
    }

    /// Asks where large files go, and sends them there, several at a time.
    fn send_batch(&self, files: &[(&LocalFile, &str)]) -> Result<()> {
        #[derive(Deserialize)]
        struct Batch {
            objects: Vec<Object>,
        }
        let mut objects: Vec<Value> =
            files.iter().map(|(file, oid)| json!({"oid": oid, "size": file.size})).collect();
        objects.sort_by(|a, b| a["oid"].as_str().cmp(&b["oid"].as_str()));
        // Two files with one content go once.
        objects.dedup();
        let json = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects,
            "hash_algo": "sha256", "ref": {"name": self.id.revision},
        });
        let url = format!("{}/{}.git/info/lfs/objects/batch", self.client.endpoint, self.id.name);
        let batch: Batch = self.json(self.lfs(&url, Vec::new(), &json))?;
        let mut work: Vec<(&LocalFile, &str, Actions)> = Vec::new();
        for Object { oid, actions, error } in batch.objects {
            let Some((file, oid)) = files.iter().find(|(_, own)| *own == oid) else { continue };
            if let Some(error) = error {
                let why = error["message"].as_str().unwrap_or("without a reason");
                let message = format!("{}: the hub refuses `{}`: {why}", self.id.name, file.name);
                return Err(Error::new("hub", message));
            }
            work.extend(actions.map(|actions| (*file, *oid, actions)));
        }
        let total = work.iter().map(|(file, ..)| file.size).sum();
        let transfers = Transfers::new(self.observer, Direction::Upload, work.len(), total);
        parallel::for_each(&work, |(file, oid, actions), halt| {
            let bar = transfers.file(&file.name, file.size);
            let sender = Sender { push: self, file, oid, bar: &bar, halt };
            actions.upload.as_ref().map_or(Ok(()), |upload| sender.send(upload))?;
            actions.verify.as_ref().map_or(Ok(()), |verify| sender.verify(verify))
        })
    }

    /// Sends a document of the large file protocol.
    fn lfs<'a>(&self, url: &'a str, mut headers: Vec<(&'a str, String)>, json: &Value) -> Answer {
        let bytes = json.to_string();
        for name in ["accept", "content-type"] {
            if !headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                headers.push((name, LFS_JSON.to_owned()));
            }
        }
        let body = Sent::Bytes(bytes.as_bytes());
        self.client.ask(&Ask { method: Method::POST, url, headers, body })
    }

    fn not_understood(&self, why: &str) -> Error {
        self.explain(Trouble::Garbled(why.to_owned()))
    }
}

/// A large file on its way.
struct Sender<'a> {
    push: &'a Push<'a>,
    file: &'a LocalFile,
    oid: &'a str,
    bar: &'a Transfer<'a>,
    halt: &'a Halt,
}

impl Sender<'_> {
    fn send(&self, action: &Action) -> Result<()> {
        match action.header.get("chunk_size") {
            Some(size) => self.send_parts(action, size),
            None => self.put(&action.href, action.headers(), 0, self.file.size).map(|_| ()),
        }
    }

    /// Sends the file in parts to an address each; the action's own address puts them together.
    fn send_parts(&self, action: &Action, size: &Value) -> Result<()> {
        let size = size.as_u64().or_else(|| size.as_str()?.parse().ok()).filter(|&size| size > 0);
        let size = size.ok_or_else(|| self.push.not_understood("`chunk_size` is not a size"))?;
        let mut parts: Vec<(u64, &str)> = action
            .header
            .iter()
            .filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str()?)))
            .collect();
        parts.sort_unstable();
        if parts.len() as u64 != self.file.size.div_ceil(size) {
            return Err(self.push.not_understood("the number of parts does not fit the file"));
        }
        let mut sent = Vec::with_capacity(parts.len());
        for (place, (number, url)) in parts.into_iter().enumerate() {
            if self.halt.load(Ordering::Relaxed) {
                return Err(self.explain(Trouble::Network("another file failed".to_owned())));
            }
            let from = place as u64 * size;
            let response = self.put(url, Vec::new(), from, size.min(self.file.size - from))?;
            let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
            let etag = etag.ok_or_else(|| self.push.not_understood("a part has no `ETag`"))?;
            sent.push(json!({"partNumber": number, "etag": etag}));
        }
        let json = json!({"oid": self.oid, "parts": sent});
        let answer = self.push.lfs(&action.href, Vec::new(), &json);
        answer.map(|_| ()).map_err(|trouble| self.explain(trouble))
    }

    /// Sends a part of the file.
    fn put(
        &self,
        url: &str,
        headers: Vec<(&str, String)>,
        from: u64,
        length: u64,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let sent = |count: i64| self.bar.advance(count);
        let part = FilePart { path: &self.file.path, from, length, sent: &sent };
        let ask = Ask { method: Method::PUT, url, headers, body: Sent::Part(part) };
        self.push.client.ask(&ask).map_err(|trouble| self.explain(trouble))
    }

    /// Lets the hub see that the file has come.
    fn verify(&self, action: &Action) -> Result<()> {
        let json = json!({"oid": self.oid, "size": self.file.size});
        let answer = self.push.lfs(&action.href, action.headers(), &json);
        answer.map(|_| ()).map_err(|trouble| self.explain(trouble))
    }

    fn explain(&self, trouble: Trouble) -> Error {
        let name = &self.push.id.name;
        let what = match trouble {
            Trouble::Network(why) | Trouble::Garbled(why) => why,
            Trouble::Refused(refusal) => {
                let own = refusal.message.map_or(String::new(), |own| format!(": {own}"));
                format!("the store answers {}{own}", refusal.status)
            }
            Trouble::File(error) => return Error::io(&self.file.path, error),
        };
        let message = format!("{name}: `{}` cannot be uploaded: {what}", self.file.name);
        Error::new("hub", message)
            .hint("run the command again: files that are there are not sent again")
    }
}

impl Action {
    /// The headers that go with it, but for those that say how a body is sent. A content type
    /// stays: a store may have signed it.
    fn headers(&self) -> Vec<(&str, String)> {
        let own = ["content-length", "host", "transfer-encoding"];
        let headers = self.header.iter();
        let headers = headers.filter(|(name, _)| !own.contains(&name.to_lowercase().as_str()));
        headers
            .filter_map(|(name, value)| Some((name.as_str(), value.as_str()?.to_owned())))
            .collect()
    }
}
