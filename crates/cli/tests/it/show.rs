//! A recipe as a run would take it, and what editors know of its keys.

use crate::house::House;

const RECIPE: &str = "model: ./tiny\nmethod: sft\ndata: {train: rows.jsonl}\n";

fn house() -> House {
    let house = House::with_model();
    house.write("r.yaml", RECIPE);
    house
}

#[test]
fn a_resolved_recipe_is_a_recipe() {
    let house = house();
    let shown = house.run(&["show", "r.yaml", "adapter.rank=2"]).done().stdout;
    let rank = "  rank: 2                                   # given on the command line";
    assert!(shown.lines().any(|line| line == rank), "{shown}");
    assert!(shown.contains("# open until data and model are read:\n#   train.batch_size: by "));
    let own = house.path().display().to_string();
    house.write("resolved.yaml", &shown.replace("HOUSE", &own));
    house.run(&["plan", "resolved.yaml"]).done();
    let json = house.run(&["show", "r.yaml", "--json"]).done().result();
    assert_eq!((&json["schema"], &json["open"][1]["key"]), (&1.into(), &"adapter.rank".into()));
}

#[test]
fn the_schema_is_json() {
    let house = house();
    let whole = house.run(&["schema"]).done().stdout;
    let schema: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(schema, house.run(&["schema", "--json"]).done().result());
    assert!(schema["properties"]["method"]["enum"].as_array().unwrap().contains(&"sft".into()));
}

#[test]
fn a_wrong_recipe_ends_every_command_with_2() {
    let house = house();
    house.write("wrong.yaml", &format!("{RECIPE}seeds: 1\n"));
    for command in ["check", "prepare", "show"] {
        let ended = house.run(&[command, "wrong.yaml"]);
        let expected = "error: wrong.yaml:4:1: unknown key `seeds`\n";
        assert!(ended.stderr.starts_with(expected), "{command}: {}", ended.stderr);
        assert_eq!(ended.code, 2, "{command}");
    }
}
