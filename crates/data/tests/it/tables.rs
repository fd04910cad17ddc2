//! Columns as pandas, `datasets` and spreadsheets write them, and as each format needs them.

use std::path::Path;

use data::record::{Reader, Reading, Wanted};
use data::{Findings, source};

use crate::records_kinds::show;

fn read(
    name: &str,
    text: &str,
    reading: &Reading,
    wanted: Wanted,
) -> Result<(Vec<String>, Findings), String> {
    let say = |error: data::Error| format!("{error} ({})", error.hint().unwrap_or("no hint"));
    let rows = source::parse(Path::new(name), text.as_bytes()).map_err(say)?;
    let reader = Reader::find(&rows, reading, wanted).map_err(say)?;
    let mut findings = Findings::default();
    let shown = rows.into_iter().map(|row| {
        let record = reader.read(row, &mut findings);
        record
            .map(|record| show(&record))
            .map_err(|error| format!("{error} ({})", error.hint.as_deref().unwrap_or("no hint")))
    });
    Ok((shown.collect::<Result<_, _>>()?, findings))
}

#[track_caller]
fn check(name: &str, text: &str, wanted: Wanted, expected: &[&str]) {
    let (shown, _) = read(name, text, &Reading::default(), wanted).unwrap();
    assert_eq!(shown, expected);
}

#[track_caller]
fn check_error(name: &str, text: &str, wanted: Wanted, expected: &str) {
    assert_eq!(read(name, text, &Reading::default(), wanted).unwrap_err(), expected);
}

#[track_caller]
fn check_finding(text: &str, id: &str, message: &str) {
    let (_, findings) = read("a.jsonl", text, &Reading::default(), Wanted::Conversations).unwrap();
    let finding = findings.get(id).unwrap_or_else(|| panic!("found only {findings:?}"));
    assert!(finding.message.contains(message), "{}", finding.message);
}

#[test]
fn labels_of_a_table_are_true_or_false() {
    for (yes, no) in
        [("True", "False"), ("TRUE", "FALSE"), ("1", "0"), ("1.0", "0.0"), ("yes", "no")]
    {
        check(
            "a.csv",
            &format!("prompt,completion,label\nOne?,1,{yes}\nTwo?,3,{no}\n"),
            Wanted::Feedback,
            &["user: One? | assistant: 1 => true", "user: Two? | assistant: 3 => false"],
        );
    }
    check_error(
        "a.csv",
        "prompt,completion,label\nOne?,1,maybe\n",
        Wanted::Feedback,
        "a.csv:2: `label` is \"maybe\", neither true nor false (write true or false; also 1 or 0, yes or no)",
    );
    check_error(
        "a.csv",
        "prompt,completion,label\nOne?,1,\n",
        Wanted::Feedback,
        "a.csv:2: `label` is \"\", neither true nor false (write true or false; also 1 or 0, yes or no)",
    );
}

#[test]
fn margins_and_scores_of_a_table_are_numbers() {
    check(
        "a.csv",
        "prompt,chosen,rejected,margin\np,c,r,0.5\np,c,r,\np,c,r,nan\n",
        Wanted::Preferences,
        &[
            "user: p => assistant: c > assistant: r by 0.5",
            "user: p => assistant: c > assistant: r",
            "user: p => assistant: c > assistant: r",
        ],
    );
    check(
        "a.tsv",
        "prompt\tchosen\trejected\tscore_chosen\tscore_rejected\np\tc\tr\t4.0\t1\n",
        Wanted::Preferences,
        &["user: p => assistant: c > assistant: r by 3"],
    );
    check_error(
        "a.csv",
        "prompt,chosen,rejected,margin\np,c,r,\"0,5\"\n",
        Wanted::Preferences,
        "a.csv:2: `margin` is \"0,5\", not a number (write digits with a decimal point, such as 0.5)",
    );
    let ranked = "user: p => assistant: b (Some(5.0)) > assistant: a (Some(1.5))";
    for cells in [
        r#""[""a"", ""b""]","[1.5, 5]""#,
        r#""['a', 'b']","['1.5', '5']""#,
        "\"['a', 'b']\",[1.5 5. ]",
    ] {
        let table = format!("prompt,responses,scores\np,{cells}\n");
        check("a.csv", &table, Wanted::Rewards, &[ranked]);
    }
    let quoted = r#"{"prompt": "p", "responses": [{"response": "a", "score": "1.5"}, {"response": "b", "score": "5"}]}"#;
    check("a.jsonl", quoted, Wanted::Rewards, &[ranked]);
    check(
        "a.csv",
        "prompt,completions,labels\np,\"['a', 'b']\",\"[True, False]\"\n",
        Wanted::Rewards,
        &["user: p => a (1), b (0)"],
    );
    check(
        "a.csv",
        "input_ids,labels\n\"[1, 2, 3]\",\"[-100.0, 2.0, 3.0]\"\n",
        Wanted::Conversations,
        &["[1, 2, 3] [0.0, 1.0, 1.0]"],
    );
}

#[test]
fn turns_in_a_cell_are_read() {
    let expected = "user: It's | assistant: 1";
    for (column, cell) in [
        (
            "messages",
            r#"[{""role"": ""user"", ""content"": ""It's""}, {""role"": ""assistant"", ""content"": ""1""}]"#,
        ),
        // As `to_csv` of pandas and of `datasets` writes a list, and one that was an array of NumPy's.
        (
            "messages",
            r#"[{'role': 'user', 'content': ""It's""}, {'role': 'assistant', 'content': '1'}]"#,
        ),
        (
            "conversations",
            "[{'from': 'human', 'value': \"\"It's\"\"}\n {'from': 'gpt', 'value': '1'}]",
        ),
        ("conversations", r#"{'from': ['human', 'gpt'], 'value': [""It's"", '1']}"#),
    ] {
        check("a.csv", &format!("{column}\n\"{cell}\"\n"), Wanted::Conversations, &[expected]);
    }
    let turn = |role: &str, text: &str| format!("[{{'role': '{role}', 'content': '{text}'}}]");
    let (prompt, answer, worse) =
        (turn("user", "p"), turn("assistant", "c"), turn("assistant", "r"));
    check(
        "a.csv",
        &format!("prompt,completion\n\"{prompt}\",\"{answer}\"\n"),
        Wanted::Conversations,
        &["user: p | assistant: c"],
    );
    check(
        "a.csv",
        &format!("prompt,chosen,rejected\n\"{prompt}\",\"{answer}\",\"{worse}\"\n"),
        Wanted::Preferences,
        &["user: p => assistant: c > assistant: r"],
    );
    // JSON that is the text of a prompt stays one.
    check(
        "a.csv",
        "prompt,completion\n\"[{\"\"a\"\": 1}]\",\"{}\"\n",
        Wanted::Conversations,
        &["user: [{\"a\": 1}] | assistant: {}"],
    );
    check(
        "a.csv",
        "instruction,input,output,history,system\ni,,o,,\ni,,o,\"[['a', 'b']]\",s\n",
        Wanted::Conversations,
        &["user: i | assistant: o", "system: s | user: a | assistant: b | user: i | assistant: o"],
    );
}

#[test]
fn cells_that_cannot_be_read_say_why() {
    const HINT: &str = "write it as JSON: a list in brackets, texts and keys in double quotes; JSON Lines and Parquet hold lists as they are";
    check_error(
        "a.csv",
        "messages\n\"[{'role': 'user', 'content': 'a'\"\n",
        Wanted::Conversations,
        &format!(
            "a.csv:2: column `messages` is text that cannot be read: no list: expected `,` or `}}`, character 33 ({HINT})"
        ),
    );
    check_error(
        "a.csv",
        "prompt,responses,scores\np,\"['a' 'b']\",\"[1, 2]\"\n",
        Wanted::Rewards,
        &format!(
            "a.csv:2: column `responses` is text that cannot be read: no list: two texts follow each other without a comma, character 9 ({HINT})"
        ),
    );
    check_error(
        "a.jsonl",
        r#"{"conversations": {"from": ["human", "gpt"], "value": ["a"]}}"#,
        Wanted::Conversations,
        &format!(
            "a.jsonl:1: column `conversations` has 2 entries in `from` and 1 in `value` ({HINT})"
        ),
    );
}

#[test]
fn lists_in_an_object_are_turns() {
    check(
        "a.jsonl",
        r#"{"conversations": {"from": ["human", "gpt"], "value": ["One?", "1"]}}"#,
        Wanted::Conversations,
        &["user: One? | assistant: 1"],
    );
    check(
        "a.jsonl",
        r#"{"prompt": "p", "chosen": {"role": ["assistant"], "content": ["c"]}, "rejected": {"role": ["assistant"], "content": ["r"]}}"#,
        Wanted::Preferences,
        &["user: p => assistant: c > assistant: r"],
    );
    check(
        "a.jsonl",
        r#"{"instruction": "p", "completions": {"model": ["x", "y"], "response": ["a", "b"], "overall_score": [1, 2]}}"#,
        Wanted::Rewards,
        &["user: p => assistant: b (Some(2.0)) > assistant: a (Some(1.0))"],
    );
}

#[test]
fn only_a_column_that_is_read_can_spoil_a_row() {
    let row = r#"{"prompt": "p", "completion": "c", "share": Infinity}"#;
    let (shown, findings) =
        read("a.jsonl", row, &Reading::default(), Wanted::Conversations).unwrap();
    assert_eq!(shown, ["user: p | assistant: c"]);
    assert!(findings.get("unused-columns").unwrap().message.contains("`share`"));
    let row = r#"{"prompt": "p", "chosen": "c", "rejected": "r", "gap": -Infinity}"#;
    let named =
        |ours: &str| Reading { columns: vec![(ours.into(), "gap".into())], ..Reading::default() };
    let error = read("a.jsonl", row, &named("margin"), Wanted::Preferences).unwrap_err();
    let expected =
        "a.jsonl:1: column `gap` holds an infinite number (replace it by a large number or null)";
    assert_eq!(error, expected);
    // NaN is how Python writes null.
    check(
        "a.jsonl",
        r#"{"instruction": "i", "input": NaN, "output": "o"}"#,
        Wanted::Conversations,
        &["user: i | assistant: o"],
    );
    check_error(
        "a.jsonl",
        r#"{"instruction": "i", "input": "", "output": NaN}"#,
        Wanted::Conversations,
        "a.jsonl:1: `output` is null (fill the field in, or name the column that holds it: `columns: {output: ...}`)",
    );
}

#[test]
fn text_that_a_table_made_of_something_else_is_found() {
    let turns = r#"{"prompt": "[{'role': 'user', 'content': 'p'}]", "completion": "c"}"#;
    check_finding(turns, "turns-as-text", "`prompt`");
    let missing = r#"{"instruction": "i", "input": "nan", "output": "o"}"#;
    check_finding(missing, "missing-value-as-text", "first in `input`");
    check_finding(
        r##"{"prompt": "p", "completion": "#NAME?"}"##,
        "spreadsheet-error",
        "`completion`",
    );
    let long = format!("{{\"prompt\": \"p\", \"completion\": \"{}\"}}", "a".repeat(32_767));
    check_finding(&long, "cut-by-spreadsheet", "`completion`");
    let fine = r#"{"prompt": "null or nan?", "completion": "n/a", "id": "nan"}"#;
    let (_, findings) = read("a.jsonl", fine, &Reading::default(), Wanted::Conversations).unwrap();
    assert!(findings.get("missing-value-as-text").is_none());
}

#[test]
fn columns_may_stand_inside_text() {
    let columns = vec![("output".to_owned(), "instances.0.output".to_owned())];
    let reading = Reading { columns, ..Reading::default() };
    let table = "instruction,instances\ni,\"[{'output': 'o'}]\"\n";
    let (shown, _) = read("a.csv", table, &reading, Wanted::Conversations).unwrap();
    assert_eq!(shown, ["user: i | assistant: o"]);
}

proptest::proptest! {
    #[test]
    fn no_text_in_a_cell_panics(text in r#"[\[\]{}(),:'" a1n.\\xuN\-é]{0,40}"#) {
        for (column, text) in [("messages", text.clone()), ("scores", format!("[{text}")), ("prompt", text)] {
            let row = serde_json::json!({ column: text, "responses": "x", "completion": "c" });
            for wanted in [Wanted::Conversations, Wanted::Rewards] {
                _ = read("a.jsonl", &row.to_string(), &Reading::default(), wanted);
            }
            let number = row.to_string().replace("\"x\"", "NaN").replace("\"c\"", "-Infinity");
            _ = source::parse(Path::new("a.json"), number.as_bytes());
        }
    }
}
