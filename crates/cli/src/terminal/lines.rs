//! What a person types.

use std::io::BufRead as _;
use std::sync::mpsc::{Receiver, channel};

/// Lines of standard input as they come. A thread of its own waits for them, so that
/// signals are seen meanwhile.
pub(crate) fn read_lines() -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    receive
}
