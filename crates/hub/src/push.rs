//! How an adapter or a model gets to the hub.
//!
//! ```text
//! POST /api/repos/create                        the repository, private unless asked otherwise
//! POST /api/models/ID/branch/REV                the branch, where it is not the main one
//! POST /api/models/ID/preupload/REV             which files are large, and which are there already
//! POST /ID.git/info/lfs/objects/batch           where the large ones go; PUT each of them there
//! POST /api/models/ID/commit/REV                all of them become a commit
//! ```

mod card;
mod commit;
mod folder;
mod upload;

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use crate::error::{Error, Result};
use crate::event::{Event, Observer};
use crate::fetch::Hub;
use crate::http::{self, Answer, Client, Trouble};
use crate::id::{HubId, MAIN, quote};
use crate::refusal::{Refusal, Subject};
use folder::Shipment;

/// What is to be pushed where.
pub struct PushRequest<'a> {
    /// An adapter, a run, or a model.
    pub folder: &'a Path,
    /// `OWNER/NAME`.
    pub repo: &'a str,
    /// The branch.
    pub revision: &'a str,
    /// Whether everybody may see it.
    pub public: bool,
    /// What the commit is called.
    pub message: Option<&'a str>,
}

/// What was pushed.
#[derive(Debug)]
pub struct Pushed {
    /// `OWNER/NAME`.
    pub repo: String,
    /// The branch.
    pub revision: String,
    /// The commit that holds it now.
    pub commit: String,
    /// Where a person finds it.
    pub url: String,
    /// Files of the folder that are there now.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not there before.
    pub files_new: usize,
    /// Files of the folder that do not belong to an adapter or model.
    pub left_out: Vec<String>,
    /// Whether only its owner sees it.
    pub private: bool,
}

/// A repository that is pushed to.
struct Push<'a> {
    client: &'a Client<'a>,
    observer: &'a dyn Observer,
    id: &'a HubId,
}

/// What the hub says about a repository.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    private: bool,
    sha: Option<String>,
}

impl Hub<'_> {
    /// Pushes a folder.
    pub(crate) fn push(&self, request: &PushRequest<'_>) -> Result<Pushed> {
        let id = repository(request)?;
        let shipment = Shipment::of(request.folder)?;
        if self.offline {
            return Err(Error::wrong("offline", "the network is forbidden")
                .hint("leave out `--offline`, and unset `HF_HUB_OFFLINE`"));
        }
        let client = self.client()?;
        if !client.has_token() {
            let message = format!("{}: pushing needs a token of the hub", id.name);
            return Err(Error::wrong("hub_unauthorized", message).hint(format!(
                "make one that may write at {}/settings/tokens, and set `HF_TOKEN` or save it \
                 with `hf auth login`",
                client.endpoint
            )));
        }
        for warning in &shipment.warnings {
            self.observer.hear(Event::Warning(warning));
        }
        Push { client: &client, observer: self.observer, id: &id }.carry_out(request, shipment)
    }
}

fn repository(request: &PushRequest<'_>) -> Result<HubId> {
    let id = HubId::parse(&format!("{}@{}", request.repo, request.revision));
    let id = id.filter(|id| id.name == request.repo && id.file.is_none());
    id.ok_or_else(|| {
        let PushRequest { repo, revision, .. } = request;
        let message = format!("`{repo}` at `{revision}` is not a repository on the hub");
        Error::wrong("command", message)
            .hint("a repository is `OWNER/NAME`, a branch a word such as `main`")
    })
}

impl Push<'_> {
    fn carry_out(&self, request: &PushRequest<'_>, shipment: Shipment) -> Result<Pushed> {
        let HubId { name, revision, .. } = self.id;
        self.create(request.public)?;
        let info = self.info()?;
        if !info.private && !request.public {
            return Err(Error::wrong("hub_public", format!("{name}: everybody can see it"))
                .hint("`--public` pushes there all the same; or take another name"));
        }
        self.make_branch()?;
        let Shipment { files, mut left_out, title, .. } = shipment;
        let state = self.upload(&files)?;
        let is_kept = |index: &usize| !state.ignored.contains(index);
        let kept: Vec<usize> = (0..files.len()).filter(is_kept).collect();
        left_out.extend(state.ignored.iter().map(|&index| files[index].name.clone()));
        let message = request.message.unwrap_or(&title);
        let commit = match state.new.is_empty() {
            true => self.newest()?,
            false => self.commit(&files, &state, message)?,
        };
        let page = format!("{}/{name}", self.client.endpoint);
        let url = if revision == MAIN { page } else { format!("{page}/tree/{revision}") };
        Ok(Pushed {
            repo: name.clone(),
            revision: revision.clone(),
            commit,
            url,
            files: kept.len(),
            bytes: kept.iter().map(|&index| files[index].size).sum(),
            files_new: state.new.len(),
            left_out,
            private: info.private,
        })
    }

    /// Makes the repository, unless it is there.
    fn create(&self, public: bool) -> Result<()> {
        let (owner, name) = self.id.name.split_once('/').expect("an id has an owner");
        let url = format!("{}/api/repos/create", self.client.endpoint);
        let json =
            json!({"type": "model", "organization": owner, "name": name, "private": !public});
        for attempt in 0..5 {
            let Err(trouble) = self.client.post(&url, &json) else { return Ok(()) };
            match &trouble {
                // An owner's repositories are made one after the other.
                Trouble::Refused(Refusal { status: 409, message: Some(why), .. })
                    if why.contains("another conflicting operation") =>
                {
                    self.client.back_off(attempt);
                }
                Trouble::Refused(Refusal { status: 409, .. }) => return Ok(()),
                // A token may write to what is there without being one that may make it.
                Trouble::Refused(Refusal { status: 403, .. }) if self.info().is_ok() => {
                    return Ok(());
                }
                _ => return Err(self.explain(trouble)),
            }
        }
        let message = format!("{}: the hub is at work on another repository", self.id.name);
        Err(Error::new("hub_busy", message).hint("try again in a minute"))
    }

    fn info(&self) -> Result<Info> {
        self.client.get_json(&self.api("")).map_err(|trouble| self.explain(trouble))
    }

    /// The commit that the branch is at.
    fn newest(&self) -> Result<String> {
        let url = self.api(&format!("/revision/{}", quote(&self.id.revision)));
        let info: Info = self.client.get_json(&url).map_err(|trouble| self.explain(trouble))?;
        Ok(info.sha.unwrap_or_default())
    }

    /// Makes the branch, unless it is there.
    fn make_branch(&self) -> Result<()> {
        let revision = &self.id.revision;
        // What is under `refs/` is the hub's to make.
        if revision == MAIN || revision.starts_with("refs/") {
            return Ok(());
        }
        let url = self.api(&format!("/branch/{}", quote(revision)));
        match self.client.post(&url, &json!({})) {
            Ok(_) | Err(Trouble::Refused(Refusal { status: 409, .. })) => Ok(()),
            Err(trouble) => Err(self.explain(trouble)),
        }
    }

    /// An address of the repository's part of the API.
    fn api(&self, rest: &str) -> String {
        format!("{}/api/models/{}{rest}", self.client.endpoint, self.id.name)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, answer: Answer) -> Result<T> {
        answer.and_then(http::json).map_err(|trouble| self.explain(trouble))
    }

    fn explain(&self, trouble: Trouble) -> Error {
        Subject { id: self.id, client: self.client, file: None, writes: true }.explain(trouble)
    }
}

#[cfg(test)]
mod tests;
