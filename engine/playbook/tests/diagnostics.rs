//! What a bad playbook is told: every problem, at its place, with a remedy.

mod told;

use stanch_playbook::load;
use told::told;

/// A playbook of one `log` step in `detect`, to which lines are added.
fn with_lines(lines: &str) -> String {
    format!("playbook: p\n{lines}\ndetect:\n  say: {{uses: log, with: {{message: hello}}}}\n")
}

fn with_step(step: &str) -> String {
    format!(
        "playbook: p\ninputs: {{host: {{type: string}}}}\ndetect:\n  first: {{uses: log, with: {{message: hello}}, outputs: {{a: result}}}}\n  s:\n{step}\n"
    )
}

#[test]
fn yaml_that_cannot_be_a_playbook_is_refused_at_its_place() {
    let deep = format!("playbook: p\ndetect: {}1{}", "[".repeat(80), "]".repeat(80));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    insta::assert_snapshot!(told(&[
        ("empty", String::new()),
        ("a comment alone", "# nothing\n".to_owned()),
        ("not a map", "- playbook\n".to_owned()),
        ("syntax", "playbook: p\ndetect:\n  a: [1, 2\n".to_owned()),
        ("tab", "playbook: p\ndetect:\n\ta: 1\n".to_owned()),
        ("unquoted template", with_step("    uses: log\n    with: {message: {{ inputs.host }}}")),
        ("unquoted template in a block", with_step("    uses: log\n    with:\n      message: {{ inputs.host }}")),
        ("unquoted exclamation mark", with_step("    uses: log\n    if: !inputs.host\n    with: {message: x}")),
        ("two documents", "playbook: p\n---\nplaybook: q\n".to_owned()),
        ("duplicate keys", "playbook: p\nplaybook: q\nowner: a\nowner: b\n".to_owned()),
        ("merge key", "playbook: p\nx: &x {a: 1}\ndetect:\n  <<: *x\n".to_owned()),
        ("unknown alias", "playbook: *p\n".to_owned()),
        ("too deep", deep),
        ("alias bomb", bomb.to_owned()),
        ("too large", format!("playbook: p\ndescription: {}", "x".repeat(1024 * 1024))),
    ]));
}

#[test]
fn keys_and_types_are_checked_everywhere() {
    insta::assert_snapshot!(told(&[
        ("no name", "detect: {s: {uses: log, with: {message: x}}}\n".to_owned()),
        ("bad name", "playbook: My Playbook\n".to_owned()),
        ("unknown keys, all at once", with_lines("severty: P0\nonwer: sec\nfoo: 1")),
        ("wrong severity", with_lines("severity: P5")),
        ("a number for a text", with_lines("owner: 5")),
        ("concurrency", with_lines("concurrency: 0")),
        ("inputs", with_lines("inputs:\n  a: {type: strnig}\n  b: {required: true}\n  c: {type: int, default: '1'}\n  d-e: {type: int}\n  f: {type: int, required: true, default: 1}")),
        ("defaults", with_lines("defaults: {timeout: 0s, retry: {max_attempts: 101, backof: 2, if: 'true'}, on_unknown: verify}")),
        ("step keys", with_step("    uses: log\n    with: {message: x}\n    need: [first]\n    foreach: inputs.hosts\n    retry: {max_attempts: 0, initial_interval: 5, backoff: 0.5, jitter: half, max_interval: 1w}\n    timeout: -5s\n    continue_on_error: yes")),
        ("no uses", with_step("    with: {message: x}")),
        ("unknown action", with_step("    uses: htpp\n    with: {url: x}")),
        ("step names", "playbook: p\ndetect:\n  Bad Name: {uses: log, with: {message: x}}\n  on_failur: {uses: log, with: {message: x}}\ncontain:\n  on_failur: {uses: log, with: {message: x}}\n  on_failure: undo\n".to_owned()),
        ("compact form", "playbook: p\ndetect: [a, b]\n".to_owned()),
        ("no steps", "playbook: p\n".to_owned()),
    ]));
}

#[test]
fn triggers_are_checked() {
    let with_triggers = |triggers: &str| {
        with_lines(&format!("inputs: {{hosts: {{type: list, required: true}}}}\ntriggers:\n{triggers}"))
    };
    insta::assert_snapshot!(told(&[
        ("none and two kinds", with_triggers("  - {key: a}\n  - {manual: {}, nats: {subject: a}}")),
        (
            "matchers",
            with_triggers(
                "  - {alertmanager: {matchers: ['alertname=X', 'env=~\"(\"', 'foo']}, inputs: {hosts: '[]'}}\n  - {alertmanager: {matchers: []}, inputs: {hosts: '[]'}}\n  - {alertmanager: {matcher: x}, inputs: {hosts: '[]'}}"
            )
        ),
        (
            "subjects",
            with_triggers(
                "  - {nats: {subject: 'a..b'}, inputs: {hosts: '[]'}}\n  - {nats: {subject: 'a.>.b'}, inputs: {hosts: '[]'}}\n  - {nats: {subject: 'a.b*'}, inputs: {hosts: '[]'}}\n  - {nats: {}, inputs: {hosts: '[]'}}"
            )
        ),
        (
            "cron",
            with_triggers(
                "  - {schedule: {cron: '0 0 9 * * MON'}, inputs: {hosts: '[]'}}\n  - {schedule: {cron: '@daily', timezone: Europe/Londn, catch_up: some}, inputs: {hosts: '[]'}}"
            )
        ),
        (
            "inputs",
            with_triggers(
                "  - {nats: {subject: a}}\n  - {nats: {subject: a}, inputs: {hots: '[]', hosts: [a, b]}}\n  - manual:"
            )
        ),
        (
            "an alert where there is none",
            with_triggers(
                "  - {schedule: {cron: '@daily'}, key: 'a/{{ alert.labels.x }}', inputs: {hosts: '[alert.labels.host]'}}"
            )
        ),
        (
            "names",
            with_triggers(
                "  - {alertmanager: {matchers: 'a=b', if: 'alert.label.x == 1'}, key: '{{ inputs.hosts }}', inputs: {hosts: 'evnt.data'}}"
            )
        ),
        ("two conditions", with_triggers("  - {nats: {subject: a, if: 'true'}, if: 'true', inputs: {hosts: '[]'}}")),
    ]));
}

#[test]
fn the_order_of_steps_is_checked() {
    let log = "uses: log, with: {message: x}";
    insta::assert_snapshot!(told(&[
        ("cycles", format!("playbook: p\ndetect:\n  a: {{{log}, needs: [b]}}\n  b: {{{log}, needs: [c]}}\n  c: {{{log}, needs: [a, d]}}\n  d: {{{log}}}\n  e: {{{log}, needs: e}}\n")),
        ("unknown and foreign needs", format!("playbook: p\ndetect:\n  enrich: {{{log}}}\n  x: {{{log}, needs: [enrch, y, enrich, enrich]}}\ncontain:\n  y: {{{log}, needs: [enrich]}}\n")),
        ("one name twice", format!("playbook: p\ndetect:\n  a: {{{log}}}\nrecover:\n  a: {{{log}}}\n")),
        (
            "steps that may not be over",
            "playbook: p\ndetect:\n  a: {uses: log, with: {message: '{{ steps.b.state }}'}}\n  b: {uses: log, needs: [a], with: {message: '{{ steps.a.state }}'}}\n  \
             c: {uses: log, needs: [b], with: {message: '{{ steps.a.state }}{{ steps.c.state }}'}}\n  d: {uses: log, if: 'steps.late.state == \"failed\"', with: {message: x}}\nfinally:\n  late: {uses: log, with: {message: '{{ steps.c.state }}'}}\n"
                .to_owned(),
        ),
    ]));
}

#[test]
fn names_in_templates_and_conditions_are_checked() {
    insta::assert_snapshot!(told(&[
        ("unknown roots", with_step("    uses: log\n    needs: [first]\n    if: hostt == 1 || host == 'a' || first.state == 'x'\n    with: {message: 'a {{ input.host }} {{ item }} {{ result.x }} {{ secrets.x }}'}")),
        ("unknown inputs and steps", with_step("    uses: log\n    needs: [first]\n    if: inputs.hots == '' && inputs['nope'] == '' && steps.frist.state == 'a'\n    with: {message: '{{ inputs.hosst }} {{json inputs.hosts}} {{#if steps.firts.state}}x{{/if}}'}")),
        ("parts", with_step("    uses: log\n    needs: [first]\n    with: {message: '{{ alert.label.x }} {{ steps.first.output.a }} {{ steps.first.outputs.b }} {{ run.outcom }} {{ steps.first.items }}'}")),
        ("a step with a dash", "playbook: p\ndetect:\n  a-b: {uses: log, with: {message: x}}\n  c: {uses: log, needs: [a-b], if: 'steps.a-b.state == \"succeeded\"', with: {message: '{{ steps.a-b.state }}'}}\n  d: {uses: log, needs: [a-b], if: 'steps[\"a-b\"].state == \"succeeded\"', with: {message: x}}\n".to_owned()),
        ("bad syntax", with_step("    uses: log\n    if: 'inputs.host ==='\n    with: {message: '{{ inputs.host }'}")),
        ("words of other languages", with_step("    uses: log\n    if: \"inputs.host == 'a' and true\"\n    with: {message: '{{ inputs.host | upper }}'}")),
        ("braces in CEL", with_step("    uses: log\n    if: \"{{ inputs.host }} == 'a'\"\n    with: {message: x}")),
        ("helpers and partials", with_step("    uses: log\n    with: {message: '{{uper inputs.host}}{{> part}}'}\n  t:\n    uses: log\n    with: {message: '{{> part}}'}\n  u:\n    uses: log\n    with: {message: '{{#*inline \"a\"}}b{{/inline}}'}\n  v:\n    uses: log\n    with: {message: '{{#forech inputs.host}}{{/forech}}'}")),
        ("a literal that looks like CEL", with_step("    uses: log\n    if: [a]\n    outputs: {a: {b: c}, 1x: '1'}\n    with: {message: x}")),
        ("multi-line text", with_step("    uses: log\n    with:\n      message: |\n        one\n        two {{ inputs.nope }}")),
        ("an alert without alert triggers", "playbook: p\ntriggers: [{nats: {subject: a}}]\ndetect: {s: {uses: log, with: {message: '{{ alert.labels.x }}'}}}\n".to_owned()),
    ]));
}

#[test]
fn parameters_are_checked_by_the_actions_signature() {
    insta::assert_snapshot!(told(&[
        ("unknown and missing fields", with_step("    uses: http\n    with: {ur: x, headers: [a], query: 5}")),
        ("no with", with_step("    uses: log")),
        ("a method", with_step("    uses: http\n    with: {url: x, method: GTE}")),
        ("a method in small letters", with_step("    uses: http\n    with: {url: x, method: post}")),
        ("a template in a literal field", with_step("    uses: http\n    with: {url: x, method: '{{ inputs.host }}'}")),
        ("a program from data", with_step("    uses: exec\n    with: {argv: ['{{ inputs.host }}', -x]}")),
        ("a shell string", with_step("    uses: exec\n    with: {argv: [/bin/sh, -ec, 'echo {{ inputs.host }}']}")),
        (
            "a shell's argument",
            with_step("    uses: exec\n    with: {argv: [sh, -c, 'echo \"$1\"', x, '{{ inputs.host }}']}")
        ),
        (
            "a shell's script from data",
            with_step("    uses: exec\n    with: {argv: [sudo, bash, '{{ inputs.host }}']}")
        ),
        ("python", with_step("    uses: exec\n    with: {argv: [python3, -c, 'print({{ inputs.host }})']}")),
        ("a command line", with_step("    uses: exec\n    with: {argv: 'rm -rf /'}")),
        ("empty argv", with_step("    uses: exec\n    with: {argv: []}")),
        (
            "secrets where none can be",
            with_step(
                "    uses: http\n    with: {url: 'x?{{ secrets.a }}', headers: {A: 'b {{ secrets.a }}', B: '{{upper secrets.a}}', C: {d: e}}, body: {k: '{{ secrets.a }}'}}"
            )
        ),
        (
            "secrets that are not listed",
            with_step(
                "    uses: http\n    secrets: [a]\n    with: {url: x, headers: {A: '{{ secrets.a }}', B: '{{ secrets.b }}'}}"
            )
        ),
        ("headers from data", with_step("    uses: http\n    with: {url: x, headers: '{{ inputs.host }}'}")),
        (
            "env",
            with_step(
                "    uses: http\n    with: {url: x}\n    env: {A: b}\n  t:\n    uses: exec\n    with: {argv: [a]}\n    env: {A-B: c, STANCH_X: d, N: 5, L: [a]}"
            )
        ),
        ("slack", with_step("    uses: slack\n    with: {channel: '#x'}")),
        (
            "wait",
            with_step(
                "    uses: wait\n    with: {duration: 5m, for: resolved}\n    retry: {max_attempts: 2}\n    outputs: {a: '1'}\n  t:\n    uses: wait\n    with: {settle: 5m}\n  u:\n    uses: wait\n    with: {for: firing}\n  v:\n    uses: wait\n    with: {duration: 5}"
            )
        ),
        ("may happen twice", with_step("    uses: exec\n    with: {argv: [a]}\n    on_unknown: retry")),
        ("templates in keys", with_step("    uses: http\n    with: {url: x, body: {'{{ inputs.host }}': 1}}")),
    ]));
}

#[test]
fn limits_hold() {
    let steps: String = (0..1001).map(|n| format!("  s{n}: {{uses: log, with: {{message: x}}}}\n")).collect();
    let triggers = "  - manual: {}\n".repeat(65);
    let sum = vec!["1"; 2_000].join(" + ");
    insta::assert_snapshot!(told(&[
        ("steps", format!("playbook: p\ndetect:\n{steps}")),
        ("triggers", with_lines(&format!("triggers:\n{triggers}"))),
        ("a long sum", with_step(&format!("    uses: log\n    if: {sum} > 0\n    with: {{message: x}}"))),
        (
            "many operators",
            with_step(&format!("    uses: log\n    if: '{} > 0'\n    with: {{message: x}}", vec!["1"; 300].join("+")))
        ),
        ("a long template", with_step(&format!("    uses: log\n    with: {{message: '{}'}}", "x".repeat(9_000)))),
        ("deep blocks", with_step(&format!("    uses: log\n    with: {{message: '{}'}}", "{{#if run}}".repeat(40)))),
    ]));
}

#[test]
fn people_see_the_line_and_a_caret() {
    let text = with_step(
        "    uses: log\n    wiht: {message: 'to {{ inputs.hots }}'}\n    with: {message: 'to {{ inputs.hots }}'}",
    );
    insta::assert_snapshot!(load("playbooks/p.yaml", &text).unwrap_err().render(false));
}

#[test]
fn yaml_traps_are_explained() {
    insta::assert_snapshot!(told(&[
        ("colon of a ternary", with_step("    uses: log\n    if: inputs.host ? true : false\n    with: {message: x}")),
        (
            "colon of a ternary in a flow map",
            with_step("    {uses: log, outputs: {a: inputs.host ? 1 : 2}, with: {message: x}}")
        ),
        ("a quote at the beginning", with_step("    uses: log\n    if: 'a' == inputs.host\n    with: {message: x}")),
        ("exclamation mark in a flow map", with_step("    {uses: log, if: !inputs.host, with: {message: x}}")),
    ]));
}

#[test]
fn a_side_effect_that_nothing_guards_is_warned_of_unless_that_is_accepted() {
    let with_step = |step: &str| with_step(step).replace("  s:\n", "contain:\n  s:\n");
    let step = |rest: &str| with_step(&format!("    uses: exec\n    with: {{argv: [rm, x]}}\n{rest}"));
    insta::assert_snapshot!(told(&[
        ("exec", step("")),
        ("in detect", step("").replace("contain:\n", "")),
        ("idempotent", step("    idempotent: true")),
        ("accepted", step("    accept: [side-effect-unguarded]")),
        ("accepted as a text", step("    accept: side-effect-unguarded")),
        ("another is accepted", step("    accept: [may-happen-twice]")),
        ("two warnings, one accepted", step("    on_unknown: retry\n    accept: [may-happen-twice]")),
        ("nothing to accept", step("    idempotent: true\n    accept: [side-effect-unguarded]")),
        ("wrong type", step("    accept: {a: b}")),
        ("a post", with_step("    uses: http\n    with: {method: POST, url: \"http://x\"}")),
        ("a get", with_step("    uses: http\n    with: {url: \"http://x\"}")),
        ("a message", with_step("    uses: slack\n    with: {text: x}")),
        ("verified", step("    verify: {uses: http, with: {url: \"http://x\"}, until: result.status == 200}")),
        ("taken back", step("    undo: {uses: exec, with: {argv: [add, x]}}")),
        (
            "asked about",
            step(
                "    needs: [t]\n  t: {needs: [ask], uses: log, with: {message: x}}\n  ask: {uses: approval, with: {prompt: ok}, timeout: 5m}"
            )
        ),
        ("asked beside it", step("  ask: {uses: approval, with: {prompt: ok}, timeout: 5m}")),
        (
            "asked before in another phase",
            step("recover:\n  t: {uses: exec, with: {argv: [rm]}, needs: []}")
                .replace("contain:", "contain:\n  ask: {uses: approval, with: {prompt: ok}, timeout: 5m}")
        ),
        ("a broken playbook is not warned too", step("    need: [x]")),
    ]));
}
