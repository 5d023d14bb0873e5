//! What a run would do, told beforehand.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;

use serde_json::{Map, Value, json};
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_playbook::{Catalogue, Timestamp};
use stanch_simulator::foresee::{Foresight, foresee};
use stanch_simulator::stimulus::Stimulus;

const NOW: Timestamp = Timestamp::from_millis(1_789_999_000_000);

fn foreseen(actions: &str, playbook: &str) -> Foresight {
    let mut catalogue = Catalogue::new();
    catalogue.load("a.catalogue.yaml", actions).unwrap();
    let loaded = stanch_playbook::load_with("p.yaml", playbook, &catalogue).unwrap_or_else(|bad| panic!("{bad}"));
    let plan = Arc::new(loaded.into_iter().next().unwrap().plan);
    let event = Event {
        id: "1".into(),
        source: "test".into(),
        kind: "request".into(),
        time: NOW,
        subject: None,
        data: Value::Null,
    };
    let target = Target::Playbook { playbook: plan.name.clone(), inputs: Map::new() };
    foresee(&plan, &[Arc::clone(&plan)], &Stimulus::Event(Arc::new(event), target), NOW).unwrap()
}

#[test]
fn an_action_of_the_catalogue_is_told_as_what_it_is_given_also_where_its_inputs_are_not_known_yet() {
    let actions = r#"
actions:
  scale:
    inputs: {name: {type: string, required: true}, replicas: {type: int, required: true}}
    uses: exec
    with: {argv: [kubectl, scale, "deployment/{{ inputs.name }}", "--replicas={{ inputs.replicas }}"]}
    verify:
      uses: exec
      with: {argv: [kubectl, get, "deployment/{{ inputs.name }}"]}
      env: {WANTED: "{{ inputs.replicas }}"}
      read_only: true
      until: result.stdout.contains(string(inputs.replicas))
    undo: {uses: exec, with: {argv: [./back.sh, "{{ inputs.name }}", "{{ result.before }}"]}}
"#;
    let playbook = r#"
playbook: p
detect:
  look: {uses: http, with: {url: x}, outputs: {n: result.body.n}}
contain:
  known: {uses: scale, with: {name: web, replicas: 3}}
  open: {uses: scale, with: {name: "{{ steps.look.outputs.name }}-web", replicas: 3}}
"#
    .replace("outputs: {n: result.body.n}", "outputs: {name: result.body.n}");
    let steps = foreseen(actions, &playbook).steps;
    let [_, known, open] = steps.as_slice() else { panic!("three steps") };
    assert_eq!(known.uses, "scale (exec)");
    assert_eq!(known.with.value, json!({"argv": ["kubectl", "scale", "deployment/web", "--replicas=3"]}));
    let (verify, _) = known.verify.as_ref().unwrap();
    assert_eq!(verify.with.value, json!({"argv": ["kubectl", "get", "deployment/web"]}));
    assert_eq!(verify.env.value, json!({"WANTED": "3"}));
    let (undo, _) = known.undo.as_ref().unwrap();
    assert_eq!(undo.with.value, json!({"argv": ["./back.sh", "web", "{{ result.before }}"]}));
    let name = "{{ steps.look.outputs.name }}-web";
    assert_eq!(open.with.value["argv"], json!(["kubectl", "scale", format!("deployment/{name}"), "--replicas=3"]));
    assert_eq!(open.with.open, ["steps.look.outputs.name"]);
    let (verify, _) = open.verify.as_ref().unwrap();
    assert_eq!(verify.with.value["argv"][2], json!(format!("deployment/{name}")));
    assert_eq!((verify.env.value.clone(), verify.env.open.clone()), (json!({"WANTED": "3"}), Vec::<String>::new()));
    let (undo, _) = open.undo.as_ref().unwrap();
    assert_eq!(undo.with.value, json!({"argv": ["./back.sh", name, "{{ result.before }}"]}));
    assert_eq!(undo.with.open, ["result.before", "steps.look.outputs.name"]);
}
