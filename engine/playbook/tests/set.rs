//! Playbooks that run each other.

use stanch_playbook::{Plan, check_set, load};

/// A playbook that runs others; `inputs` is what it takes, `calls` are names with their inputs.
fn playbook(name: &str, inputs: &str, calls: &[(&str, &str)]) -> Plan {
    let steps: String = calls
        .iter()
        .enumerate()
        .map(|(at, (child, inputs))| {
            format!("  s{at}: {{uses: playbook, with: {{playbook: {child}, inputs: {inputs}}}}}\n")
        })
        .collect();
    let text =
        format!("playbook: {name}\ninputs: {inputs}\ndetect:\n  say: {{uses: log, with: {{message: x}}}}\n{steps}");
    load("p.yaml", &text).map_err(|error| error.to_string()).expect("a good playbook").plan
}

fn told(plans: &[Plan]) -> Vec<String> {
    check_set(&plans.iter().collect::<Vec<_>>()).iter().map(ToString::to_string).collect()
}

#[test]
fn children_that_do_not_exist_are_told_with_the_nearest() {
    assert_eq!(
        told(&[
            playbook("parent", "{}", &[("rotate-kys", "{}"), ("nothing-like-it", "{}")]),
            playbook("rotate-keys", "{}", &[])
        ]),
        [
            "parent: detect.s0: error[unknown-playbook]: no playbook is named rotate-kys; did you mean rotate-keys?",
            "parent: detect.s1: error[unknown-playbook]: no playbook is named nothing-like-it",
        ]
    );
}

#[test]
fn inputs_of_children_are_checked() {
    let child = || playbook("child", "{hosts: {type: list, required: true}, drill: {type: bool}, n: {type: int}}", &[]);
    assert_eq!(
        told(&[
            playbook("a", "{}", &[("child", "{}"), ("child", "{hots: [], hosts: []}")]),
            playbook(
                "b",
                "{}",
                &[("child", "{hosts: 5, drill: {}}"), ("child", "{hosts: '{{ event.data }}', drill: 'true', n: null}")]
            ),
            child(),
        ]),
        [
            "a: detect.s0: error[missing-input]: the required input hosts of child is missing; add it to with: inputs: {hosts: ...}, as a list",
            "a: detect.s1: error[unknown-input]: child has no input named hots; did you mean hosts?",
            "b: detect.s0: error[wrong-type]: input drill of child is a map, not a bool; give a bool",
            "b: detect.s0: error[wrong-type]: input hosts of child is an int, not a list; give a list",
        ]
    );
}

#[test]
fn cycles_are_told_as_a_path() {
    assert_eq!(
        told(&[
            playbook("a", "{}", &[("b", "{}")]),
            playbook("b", "{}", &[("c", "{}")]),
            playbook("c", "{}", &[("b", "{}"), ("c", "{}")]),
        ]),
        [
            "b: detect.s0: error[playbook-cycle]: these playbooks run each other: b -> c -> b; remove one of these steps",
            "c: detect.s1: error[playbook-cycle]: these playbooks run each other: c -> c; remove one of these steps",
        ]
    );
}

#[test]
fn chains_are_not_longer_than_the_limit() {
    let chain = |length: usize| -> Vec<Plan> {
        (0..length)
            .map(|at| {
                let next = format!("p{}", at + 1);
                let calls = [(next.as_str(), "{}")];
                playbook(&format!("p{at}"), "{}", if at + 1 < length { &calls } else { &[] })
            })
            .collect()
    };
    assert_eq!(told(&chain(8)), [""; 0]);
    let expected = |at: usize| {
        format!(
            "p{at}: detect.s0: error[too-deep]: a chain of more than 8 playbooks begins here; let one of them do what the next one does"
        )
    };
    assert_eq!(told(&chain(9)), [expected(0)]);
    assert_eq!(told(&chain(3000)), [expected(2991)]);
}

#[test]
fn a_child_that_is_taken_back_has_an_undo_or_runs_one_that_has() {
    let parent = |child: &str| {
        let text = format!(
            "playbook: over-{child}\ncontain:\n  sub: {{uses: playbook, with: {{playbook: {child}}}}}\nrecover:\n  back: {{uses: undo, with: {{step: sub}}}}\n"
        );
        load("p.yaml", &text).map_err(|error| error.to_string()).expect("a good playbook").plan
    };
    let text = "playbook: leaf\ndetect:\n  a: {uses: log, with: {message: x}, undo: {uses: log, with: {message: y}}}\n";
    let leaf = load("p.yaml", text).map_err(|error| error.to_string()).expect("a good playbook").plan;
    let (middle, without) = (playbook("middle", "{}", &[("leaf", "{}")]), playbook("without", "{}", &[]));
    assert_eq!(
        told(&[parent("leaf"), parent("middle"), parent("without"), leaf, middle, without]),
        [
            "over-without: recover.back: error[no-undo]: no step of without says how it is taken back; add undo: {uses: ...} to a step of without"
        ]
    );
}
