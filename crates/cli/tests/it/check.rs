//! What `check` tells of data.

use serde_json::Value;

use crate::house::House;

#[test]
fn the_sides_of_pairs_are_compared() {
    let house = House::with_model();
    let pair = |chosen: &str, rejected: &str| {
        format!("{{\"prompt\": \"q\", \"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
    };
    house
        .write("pairs.jsonl", &[pair("longer", "short"), pair("a", "a"), pair("x", "yz")].concat());
    house.write("r.yaml", "model: ./tiny\nmethod: dpo\ndata: {train: pairs.jsonl}\n");
    let ended = house.run(&["check", "r.yaml", "--samples", "0"]).done();
    let expected = "\npairs      3: the chosen answer is longer in 33.3 %, shorter in 33.3 %; chosen \
                    answers have 1.00 times the characters of rejected ones; 1 identical\n";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    let asked = ["check", "r.yaml", "--samples", "0", "--json", "--html", "page.html"];
    let report = house.run(&asked).done().result();
    assert_eq!((&report["pairs"]["count"], &report["pairs"]["identical"]), (&3.into(), &1.into()));
    assert!(house.read("page.html").contains("of chosen answers longer"));

    // Other rows have no sides.
    house.write("r.yaml", "model: ./tiny\nmethod: sft\ndata: {train: rows.jsonl}\n");
    let asked = ["check", "r.yaml", "--samples", "0", "--json"];
    assert_eq!(house.run(&asked).done().result()["pairs"], Value::Null);
}
