//! Checksums of files.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::{Failure, Result};

/// The SHA-256 of a file, in hex.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let mut digest = Sha256::new();
    feed(&mut digest, path)?;
    Ok(hex(digest))
}

/// Adds the content of a file.
pub(super) fn feed(digest: &mut Sha256, path: &Path) -> Result<()> {
    read_into(digest, path).map_err(|error| Failure::io(path, &error))
}

fn read_into(digest: &mut Sha256, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(()),
            count => digest.update(&chunk[..count]),
        }
    }
}

/// What has been added, in hex.
pub(super) fn hex(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_sum() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&dir.path().join("a")).unwrap(), expected);
    }
}
