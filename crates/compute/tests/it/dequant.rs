//! Every storage against the `gguf` package, bit for bit.

use compute::Storage;
use compute::dequant::dequantize;

fn storage(name: &str) -> Storage {
    Storage::ALL
        .into_iter()
        .find(|storage| format!("{storage:?}") == name)
        .expect("a known storage")
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

#[test]
fn blocks_equal_the_gguf_package() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../golden/gguf_blocks.json")).expect("golden");
    let rows = golden["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 11);
    for row in rows {
        let name = row["storage"].as_str().expect("storage");
        let bits = row["bits"].as_array().expect("bits");
        let expected: Vec<u64> = bits.iter().map(|bits| bits.as_u64().expect("bits")).collect();
        let mut out = vec![0.0; expected.len()];
        dequantize(storage(name), &hex(row["bytes"].as_str().expect("bytes")), &mut out);
        let out: Vec<u64> = out.iter().map(|value| u64::from(value.to_bits())).collect();
        assert_eq!(out, expected, "{name}");
    }
}
