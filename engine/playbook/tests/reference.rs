//! The reference: every key has an example in its section, every example loads, and the kept copy is this one.

use std::collections::BTreeMap;

use stanch_playbook::{Catalogue, check_set, load, load_tests, load_with, reference};

/// The sections of the reference: the keys of their tables, and their examples.
fn sections() -> BTreeMap<String, (Vec<String>, Vec<String>)> {
    let mut sections: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    let mut title = String::new();
    let mut block: Option<String> = None;
    for line in reference().lines() {
        let section = sections.entry(title.clone()).or_default();
        match (&mut block, line) {
            (Some(text), "```") => {
                section.1.push(std::mem::take(text));
                block = None;
            }
            (Some(text), line) => *text += &format!("{line}\n"),
            (None, "```yaml") => block = Some(String::new()),
            (None, line) => {
                if let Some(name) = line.strip_prefix("## ") {
                    name.clone_into(&mut title);
                } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|rest| rest.split_once('`')) {
                    section.0.push(key.to_owned());
                }
            }
        }
    }
    sections
}

#[test]
fn every_key_has_an_example_in_its_section() {
    let sections = sections();
    assert!(sections.len() > 10);
    for (title, (keys, examples)) in sections {
        let all = format!("\n{}", examples.concat());
        for key in keys.iter().filter(|key| !key.contains('.') && title != "Names, templates and CEL") {
            let given = |before: &str| all.contains(&format!("{before}{key}:"));
            assert!(["\n", " ", "{", "- "].iter().any(|before| given(before)), "{title}: no example of {key}");
        }
        assert!(title.is_empty() || !examples.is_empty(), "{title} has no example");
    }
}

#[test]
fn every_example_loads_without_a_warning() {
    let examples: Vec<String> = sections().into_values().flat_map(|(_, examples)| examples).collect();
    let (tests, examples): (Vec<&String>, Vec<&String>) = examples.iter().partition(|text| text.contains("\ntests:\n"));
    let (catalogues, playbooks): (Vec<&String>, Vec<&String>) =
        examples.into_iter().partition(|text| text.contains("\nactions:\n"));
    let mut catalogue = Catalogue::new();
    for text in catalogues {
        assert_eq!(catalogue.load("x.catalogue.yaml", text).map_err(|error| error.to_string()), Ok(Vec::new()));
    }
    let mut plans = Vec::new();
    for text in playbooks {
        let loaded = load_with("x.yaml", text, &catalogue).unwrap_or_else(|error| panic!("{error}\n{text}"));
        for one in loaded {
            assert_eq!(one.warnings, [], "{text}");
            plans.push(one.plan);
        }
    }
    let child =
        "playbook: rotate-credentials\ninputs: {hosts: {type: list}}\ndetect: {s: {uses: log, with: {message: x}}}\n";
    plans.push(load("child.yaml", child).unwrap().plan);
    assert_eq!(check_set(&plans.iter().collect::<Vec<_>>()), []);
    assert_eq!(tests.len(), 1);
    let tests = load_tests("x.test.yaml", tests[0]).unwrap_or_else(|error| panic!("{error}"));
    let plan_of = |name: &str| plans.iter().find(|plan| plan.name.as_str() == name);
    assert_eq!(tests.check_names(plan_of, &[]), []);
}

#[test]
fn the_reference_in_the_repository_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../playbooks/LANGUAGE.md");
    if std::env::var_os("STANCH_WRITE").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == reference(), "make it again: STANCH_WRITE=1 cargo nextest run -p stanch-playbook");
}
