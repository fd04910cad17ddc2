use std::io::Write as _;
use std::process::Stdio;

use crate::house::House;

#[test]
fn a_dialogue_goes_line_by_line() {
    let house = House::with_model();
    let mut command = house.command(&["chat", "tiny", "--max-new-tokens", "3"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hi\n/base\n/reset\nhi\n/quit\nnever\n").unwrap();
    let ended = house.ended(&child.wait_with_output().unwrap()).done();
    let answers: Vec<&str> = ended.stdout.lines().collect();
    assert_eq!(answers.len(), 2, "{}", ended.stdout);
    assert_eq!(answers[0], answers[1], "a new dialogue begins as the first did");
    assert!(
        ended.stderr.contains("there is no adapter to turn off\na new dialogue\n"),
        "{}",
        ended.stderr
    );
}
