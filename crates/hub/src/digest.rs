//! Checksums of files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The checksum that a file should have, in hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// SHA-256 of the content.
    Sha256(String),
    /// Git's name of the content: SHA-1 of `blob SIZE\0` and the content.
    GitBlob(String),
}

impl Sum {
    /// The sum in hex.
    pub(crate) fn hex(&self) -> &str {
        match self {
            Sum::Sha256(hex) | Sum::GitBlob(hex) => hex,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Sum::Sha256(_) => "SHA-256",
            Sum::GitBlob(_) => "git hash",
        }
    }

    /// What the sum of a file is, where it is not this one.
    pub(crate) fn mismatch(&self, path: &Path) -> Result<Option<String>> {
        let found = match self {
            Sum::Sha256(_) => sha256(path)?,
            Sum::GitBlob(_) => git_blob(path)?,
        };
        let expected = self.hex();
        let name = self.name();
        Ok((found != expected).then(|| format!("its {name} is {found}, not {expected}")))
    }
}

/// The SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    read(path, &mut |chunk| digest.update(chunk))?;
    Ok(hex(&digest.finalize()))
}

/// Git's name of a file's content, in hex.
pub(crate) fn git_blob(path: &Path) -> Result<String> {
    let size = path.metadata().map_err(|error| Error::io(path, error))?.len();
    let mut digest = Sha1::new();
    digest.update(format!("blob {size}\0"));
    read(path, &mut |chunk| digest.update(chunk))?;
    Ok(hex(&digest.finalize()))
}

/// The sums of a text as [`sha256`] and [`git_blob`] have them of a file.
pub(crate) fn of_text(text: &str) -> (String, String) {
    let git = Sha1::new_with_prefix(format!("blob {}\0", text.len())).chain_update(text);
    (hex(&Sha256::digest(text)), hex(&git.finalize()))
}

fn read(path: &Path, take: &mut dyn FnMut(&[u8])) -> Result<()> {
    let io = |error: std::io::Error| Error::io(path, error);
    let mut file = File::open(path).map_err(io)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(io)? {
            0 => return Ok(()),
            count => take(&chunk[..count]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_sums() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        // FIPS 180-2, appendix B.1; `git hash-object`.
        let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let git = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f";
        assert_eq!(sha256(&path).unwrap(), sha);
        assert_eq!(git_blob(&path).unwrap(), git);
        assert_eq!(of_text("abc"), (sha.to_owned(), git.to_owned()));
        assert_eq!(Sum::GitBlob(git.into()).mismatch(&path).unwrap(), None);
        let why = Sum::Sha256(git.into()).mismatch(&path).unwrap();
        assert_eq!(why, Some(format!("its SHA-256 is {sha}, not {git}")));
    }
}
