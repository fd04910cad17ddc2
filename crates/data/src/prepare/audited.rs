//! What audits found, kept in the folder of the first set that they looked at: comparing rows takes longer than
//! reading them, and says the same until a row, the split or the program changes.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Config, Made, key};
use crate::checksum::{seal, unseal};
use crate::store::{Found, write_whole};
use crate::{Findings, Result};

/// Raised whenever the same rows give other findings.
const AUDITS: u32 = 2;

/// What an audit found.
pub(super) struct Audited {
    pub(super) findings: Findings,
    /// One for every row that was compared, where the audit tells.
    pub(super) ids: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    found: Found,
    ids: Vec<u64>,
}

impl Made {
    /// The audit of that name, which depends on the sets of `purposes` and on the rows that are kept back.
    pub(super) fn audited(
        &self,
        config: &Config,
        name: &str,
        purposes: &[&str],
        kept_back: &[bool],
        audit: impl FnOnce() -> Result<Audited>,
    ) -> Result<Audited> {
        let of = |(_, purpose): &(usize, &(&str, usize))| purposes.contains(&purpose.0);
        let sets: Vec<usize> =
            self.purposes.iter().enumerate().filter(of).map(|(index, _)| index).collect();
        let (Some(cache), Some(&first)) = (&config.cache, sets.first()) else { return audit() };
        let files: Vec<Arc<Path>> = sets.iter().map(|&set| self.sets[set].file.clone()).collect();
        let parts = sets.iter().map(|&set| {
            // Messages name files.
            json!([self.purposes[set], self.keys[set], self.sets[set].file.to_string_lossy()])
        });
        let bits: Vec<u8> = kept_back.iter().map(|&kept| kept.into()).collect();
        let name = key::name(&json!({
            "audits": AUDITS,
            "version": env!("CARGO_PKG_VERSION"),
            "name": name,
            "sets": parts.collect::<Vec<_>>(),
            "kept_back": key::hex(&Sha256::digest(&bits)),
        }));
        let path = cache.join(&self.keys[first]).join(format!("audit-{name}.json"));
        if let Some(audited) = read(&path, &files) {
            return Ok(audited);
        }
        let audited = audit()?;
        let kept = Kept { found: Found::of(&audited.findings, &files), ids: audited.ids };
        let json = seal(serde_json::to_vec(&kept).expect("findings are JSON"));
        let writer = format!(".{}-{:?}", std::process::id(), std::thread::current().id());
        write_whole(&path, &writer, &json)?;
        Ok(Audited { findings: audited.findings, ids: kept.ids })
    }
}

/// A file that is damaged is made again.
fn read(path: &Path, files: &[Arc<Path>]) -> Option<Audited> {
    let Kept { found, ids } = serde_json::from_slice(unseal(&std::fs::read(path).ok()?)?).ok()?;
    Some(Audited { findings: found.at(files)?, ids })
}
