//! What the outside hears of downloads and uploads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A sentence about what is being done.
    Note(&'a str),
    /// Something that the user should know, though the work goes on.
    Warning(&'a str),
    /// Files begin to move. One group of files is over before the next begins.
    Begin {
        /// From the hub or to it.
        direction: Direction,
        /// How many files move.
        files: usize,
        /// Their size in bytes.
        bytes: u64,
    },
    /// One of the files begins to move.
    FileBegin {
        /// Its number within the group.
        file: usize,
        /// Its name.
        name: &'a str,
        /// Its size in bytes.
        bytes: u64,
    },
    /// Bytes of a file have moved; a negative count takes back what has to move again.
    Moved {
        /// The number of the file.
        file: usize,
        /// How many bytes.
        bytes: i64,
    },
    /// A file moves no more: it has arrived, or failed.
    FileEnd {
        /// The number of the file.
        file: usize,
    },
    /// The group is over.
    End,
}

/// Which way files move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the hub.
    Download,
    /// To the hub.
    Upload,
}

/// Hears what goes on, on several threads at a time.
pub trait Observer: Sync {
    /// Takes in one event.
    fn hear(&self, event: Event<'_>);
}

/// Nobody listens.
impl Observer for () {
    fn hear(&self, _: Event<'_>) {}
}

impl dyn Observer + '_ {
    pub(crate) fn note(&self, text: &str) {
        self.hear(Event::Note(text));
    }
}

/// A group of files on their way.
pub(crate) struct Transfers<'a> {
    observer: &'a dyn Observer,
    files: AtomicUsize,
}

impl<'a> Transfers<'a> {
    /// Begins with `files` of so many bytes in all.
    pub(crate) fn new(
        observer: &'a dyn Observer,
        direction: Direction,
        files: usize,
        bytes: u64,
    ) -> Self {
        observer.hear(Event::Begin { direction, files, bytes });
        Transfers { observer, files: AtomicUsize::new(0) }
    }

    /// One of the files begins.
    pub(crate) fn file(&self, name: &str, bytes: u64) -> Transfer<'a> {
        let file = self.files.fetch_add(1, Ordering::Relaxed);
        self.observer.hear(Event::FileBegin { file, name, bytes });
        Transfer { observer: self.observer, file, position: Mutex::new(0) }
    }
}

impl Drop for Transfers<'_> {
    fn drop(&mut self) {
        self.observer.hear(Event::End);
    }
}

/// A file on its way.
pub(crate) struct Transfer<'a> {
    observer: &'a dyn Observer,
    file: usize,
    position: Mutex<u64>,
}

impl Transfer<'_> {
    /// So many bytes are there; fewer than before when some go again.
    pub(crate) fn set(&self, position: u64) {
        let mut so_far = self.position.lock().expect("nobody panics with it");
        let bytes = position.wrapping_sub(*so_far).cast_signed();
        self.observer.hear(Event::Moved { file: self.file, bytes });
        *so_far = position;
    }

    /// So many bytes more, or less.
    pub(crate) fn advance(&self, bytes: i64) {
        let mut so_far = self.position.lock().expect("nobody panics with it");
        self.observer.hear(Event::Moved { file: self.file, bytes });
        *so_far = so_far.saturating_add_signed(bytes);
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.observer.hear(Event::FileEnd { file: self.file });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ear(Mutex<Vec<String>>);

    impl Observer for Ear {
        fn hear(&self, event: Event<'_>) {
            self.0.lock().unwrap().push(format!("{event:?}"));
        }
    }

    #[test]
    fn bytes_of_a_file_add_up() {
        let ear = Ear(Mutex::default());
        let transfers = Transfers::new(&ear, Direction::Download, 1, 9);
        let file = transfers.file("a", 9);
        file.set(4);
        file.advance(5);
        file.set(2);
        drop(file);
        drop(transfers);
        let heard = ear.0.into_inner().unwrap();
        assert_eq!(
            heard,
            [
                "Begin { direction: Download, files: 1, bytes: 9 }",
                "FileBegin { file: 0, name: \"a\", bytes: 9 }",
                "Moved { file: 0, bytes: 4 }",
                "Moved { file: 0, bytes: 5 }",
                "Moved { file: 0, bytes: -7 }",
                "FileEnd { file: 0 }",
                "End",
            ]
        );
    }
}
