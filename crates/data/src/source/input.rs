//! The bytes of a file or of memory, looked at before they are read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use super::file_error;
use crate::{Error, Result};

/// Bytes that are read once, front to back.
pub(super) type Stream = Box<dyn BufRead + Send>;

/// Bytes that can be read from anywhere.
pub(super) trait Seekable: Read + Seek + Send {}

impl<T: Read + Seek + Send> Seekable for T {}

/// How much of a file decides on its format, in bytes.
pub(super) const HEAD: usize = 64 << 10;

/// Where bytes come from.
pub(super) enum Input {
    /// A file, or what the system shows as one.
    File(File),
    /// Content in memory.
    Memory(Cursor<Bytes>),
}

impl Input {
    /// Takes the first bytes.
    pub(super) fn head(&mut self) -> io::Result<Vec<u8>> {
        let source: &mut dyn Read = match self {
            Input::File(file) => file,
            Input::Memory(bytes) => bytes,
        };
        head(source)
    }

    /// All bytes, of which `head` was taken before.
    pub(super) fn after(self, head: Vec<u8>) -> Stream {
        let head = Cursor::new(head);
        match self {
            Input::File(file) => Box::new(head.chain(BufReader::with_capacity(HEAD, file))),
            Input::Memory(bytes) => Box::new(head.chain(bytes)),
        }
    }

    /// All bytes, from the first.
    pub(super) fn rewound(mut self) -> io::Result<Input> {
        match &mut self {
            Input::File(file) => file.rewind()?,
            Input::Memory(bytes) => bytes.set_position(0),
        }
        Ok(self)
    }

    pub(super) fn seekable(self) -> Box<dyn Seekable> {
        match self {
            Input::File(file) => Box::new(BufReader::new(file)),
            Input::Memory(bytes) => Box::new(bytes),
        }
    }
}

/// How a file is packed.
#[derive(Clone, Copy)]
pub(super) enum Packed {
    Gzip,
    Zstd,
}

impl Packed {
    /// Tells by the first bytes.
    pub(super) fn of(head: &[u8]) -> Option<Packed> {
        match head {
            [0x1f, 0x8b, ..] => Some(Packed::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Packed::Zstd),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Packed::Gzip => "gzip",
            Packed::Zstd => "zstd",
        }
    }

    /// Unpacks a stream, and takes the first unpacked bytes.
    pub(super) fn open(self, stream: Stream) -> io::Result<(Vec<u8>, Stream)> {
        let mut unpacked: Stream = match self {
            Packed::Gzip => Box::new(BufReader::with_capacity(HEAD, MultiGzDecoder::new(stream))),
            Packed::Zstd => {
                let decoder = zstd::Decoder::with_buffer(stream)?;
                Box::new(BufReader::with_capacity(HEAD, decoder))
            }
        };
        let head = head(&mut unpacked)?;
        Ok((head.clone(), Box::new(Cursor::new(head).chain(unpacked))))
    }
}

fn head(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    source.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

/// Why a file cannot be read on.
pub(super) fn reading(path: &Path, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::UnexpectedEof {
        return cut_off(path, "file ends too early");
    }
    Error::Io { path: path.into(), source }
}

/// An error of a file that came over incomplete.
pub(super) fn cut_off(path: &Path, message: impl Into<String>) -> Error {
    file_error(path.display(), message)
        .hinting("it is cut off or damaged: copy or download it again")
}

/// Names the formats that people have and this crate does not read.
pub(super) fn refuse_other_formats(path: &Path, head: &[u8]) -> Result<()> {
    const UTF_8: &str = "save it as UTF-8";
    const UNPACK: &str = "unpack it, or pack it with gzip or zstd";
    const EXPORT: &str = "write its rows as JSON Lines, CSV or Parquet";
    let known: [(&[u8], &str, &str); 11] = [
        (&[0xff, 0xfe], "UTF-16", UTF_8),
        (&[0xfe, 0xff], "UTF-16", UTF_8),
        (b"PK\x03\x04", "zip", UNPACK),
        (b"BZh", "bzip2", UNPACK),
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", UNPACK),
        (b"7z\xbc\xaf\x27\x1c", "7z", UNPACK),
        (b"SQLite format 3\0", "SQLite", EXPORT),
        (b"\x93NUMPY", "NumPy", EXPORT),
        (b"\x89HDF", "HDF5", EXPORT),
        (b"%PDF", "PDF", EXPORT),
        (b"Obj\x01", "Avro", EXPORT),
    ];
    let by_magic = known.iter().find(|(magic, ..)| head.starts_with(magic));
    let by_magic = by_magic.map(|&(_, name, hint)| (name, hint));
    let found = by_magic.or(match head {
        [0x80, 2..=5, ..] => Some(("a Python pickle", EXPORT)),
        // ASCII in UTF-16 without a byte order mark: every other byte is zero.
        [0, 1..=255, 0, 1..=255, ..] | [1..=255, 0, 1..=255, 0, ..] => Some(("UTF-16", UTF_8)),
        _ => None,
    });
    match found {
        Some((name, hint)) => {
            Err(file_error(path.display(), format!("file is {name}")).hinting(hint))
        }
        None => Ok(()),
    }
}
