//! Checksums of what is kept on disk and believed later: a bit that flipped there must not train other numbers.
//!
//! CRC-32 finds every error of up to 32 neighbouring bits, and of longer ones all but one in four thousand million.

use std::io::Read as _;
use std::path::Path;

/// The checksum of bytes.
pub fn checksum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Length and checksum of a file, read a piece at a time.
pub fn file_checksum(path: &Path) -> std::io::Result<(u64, u32)> {
    let mut file = std::fs::File::open(path)?;
    let (mut hasher, mut piece, mut len) = (crc32fast::Hasher::new(), vec![0; 1 << 18], 0);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok((len, hasher.finalize())),
            read => {
                hasher.update(&piece[..read]);
                len += read as u64;
            }
        }
    }
}

/// A small text with its checksum as the last line.
pub(crate) fn seal(mut text: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&text);
    text.extend(format!("\n{sum:08x}\n").as_bytes());
    text
}

/// The text of [`seal`], where it is as it was written.
pub(crate) fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (text, line) = sealed.split_at_checked(sealed.len().checked_sub(10)?)?;
    (line == format!("\n{:08x}\n", checksum(text)).as_bytes()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_breaks_the_seal() {
        let sealed = seal(b"{\"shards\": 3}".to_vec());
        assert_eq!(unseal(&sealed), Some(&b"{\"shards\": 3}"[..]));
        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(&flipped), None, "bit {bit}");
        }
        assert_eq!(unseal(b"short"), None);
    }
}
