use crate::fixture::schema;
use serde_json::json;

#[test]
fn help_has_two_lines_for_each_key() {
    let help = schema().help();
    let start = "\
model.id                     Hub id, folder or file.
                             a path or a name (default: required)
";
    assert!(help.starts_with(&start.replace(" (default: required)", "; required")), "{help}");
    let rank = "\
adapter.rank                 Rank of the adapter matrices.
                             a whole number, 1 to 4096; default by rows
";
    assert!(help.contains(rank), "{help}");
    let length = "\
data.max_seq_len             Longest row.
                             a whole number, at least 1, or auto (tokens); default auto
";
    assert!(help.contains(length), "{help}");
    assert!(!help.contains("rollout") && !help.contains("weight"), "{help}");
}

#[test]
fn markdown_has_a_row_for_each_key() {
    let table = schema().markdown();
    assert!(table.starts_with("| key | takes | default | |\n|---|---|---|---|\n"), "{table}");
    let row = "| `adapter.dropout` | a number, 0 to under 1 | `0.0` | Dropout before A. |\n";
    assert!(table.contains(row), "{table}");
}

#[test]
fn the_json_schema_nests_groups_and_knows_shorthands() {
    let schema = schema().json_schema();
    let adapter = &schema["properties"]["adapter"]["anyOf"];
    assert_eq!(adapter[1]["enum"], json!(["lora", "rslora", "none"]));
    let rank = json!({
        "type": "integer", "minimum": 1, "maximum": 4096,
        "description": "Rank of the adapter matrices."
    });
    assert_eq!(adapter[0]["properties"]["rank"], rank);
    assert_eq!(adapter[0]["additionalProperties"], false);
    let train = &schema["properties"]["data"]["properties"]["train"]["anyOf"];
    assert_eq!(train[0]["type"], "array");
    assert_eq!(train[0]["items"]["anyOf"][1]["type"], "string");
    assert_eq!(train[1]["anyOf"][0]["properties"]["hub"]["type"], "string");
    let group = &schema["properties"]["train"]["properties"];
    let every = &group["evaluate_every"]["anyOf"];
    assert_eq!(every[1]["default"], 50);
    let betas = json!({
        "type": "array", "minItems": 2, "maxItems": 2, "description": "Decays.",
        "items": {"type": "number", "minimum": 0.0, "exclusiveMaximum": 1.0},
        "default": [0.9, 0.999]
    });
    assert_eq!(group["optimizer"]["properties"]["betas"], betas);
    assert!(schema["properties"].get("rollout").is_none());
}
