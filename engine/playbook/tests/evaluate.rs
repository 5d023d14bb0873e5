//! Templates and conditions over the names of a run.

use serde_json::{Value, json};
use stanch_playbook::{Expression, Scope, Template, load};

fn scope() -> Scope {
    let names = json!({
        "inputs": {"hosts": ["a", "b"], "host": "db-1", "n": 3, "big": 9_007_199_254_740_993_i64, "f": 1.5, "yes": true, "nothing": null, "braces": "{{ run.id }}", "html": "<a href=\"x\">&'</a>", "map": {"k": 1}},
        "alert": {"labels": {"cluster": "eu", "odd name": "x"}},
        "alerts": [{"labels": {"host": "h1"}}, {"labels": {"host": "h2"}}],
        "steps": {"enrich": {"state": "succeeded", "outputs": {"score": 90}}, "a-b": {"state": "skipped"}},
        "event": {"data": {"confidence": 80}},
        "run": {"id": "r1", "list": []},
    });
    match names {
        Value::Object(map) => Scope(map.into_iter().collect()),
        _ => unreachable!("an object was just written"),
    }
}

fn rendered(text: &str) -> String {
    match Template::compile(text) {
        Ok(template) => match template.render(&scope()) {
            Ok(text) => text,
            Err(error) => format!("error: {error}"),
        },
        Err(error) => format!("refused at {}: {error}", error.offset),
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(rendered(text), expected, "{text}");
}

fn evaluated(text: &str) -> Result<Value, String> {
    Expression::compile(text)
        .map_err(|error| format!("refused at {}: {error}", error.offset))?
        .evaluate(&scope())
        .map_err(|error| error.to_string())
}

#[track_caller]
fn value(text: &str, expected: Value) {
    assert_eq!(evaluated(text), Ok(expected), "{text}");
}

#[track_caller]
fn fails(text: &str, expected: &str) {
    assert_eq!(evaluated(text), Err(expected.to_owned()), "{text}");
}

#[test]
fn templates_print_texts_as_they_are_and_scalars_as_json() {
    check("plain", "plain");
    check("", "");
    check("{{ inputs.host }}", "db-1");
    check("a {{inputs.host}}:{{ inputs.n }}/{{inputs.f}}/{{ inputs.yes }} b", "a db-1:3/1.5/true b");
    check("{{ inputs.big }}", "9007199254740993");
    check("{{ inputs.html }}", "<a href=\"x\">&'</a>");
    check("{{{ inputs.html }}}", "<a href=\"x\">&'</a>");
    check("{{ alert.labels.[odd name] }}", "x");
    check("{{ steps.a-b.state }}", "skipped");
    check("{{ alerts.1.labels.host }}", "h2");
    check("a \\{{ inputs.host }}", "a {{ inputs.host }}");
    check("grüße {{ inputs.host }} ☃", "grüße db-1 ☃");
}

#[test]
fn what_is_rendered_once_is_not_rendered_again() {
    check("{{ inputs.braces }}", "{{ run.id }}");
    check("{{lower inputs.braces}}", "{{ run.id }}");
}

#[test]
fn missing_null_and_collections_are_errors_in_every_form_of_template() {
    for form in ["{{ X }}", "{{~ X ~}}", "{{#if run}}{{ X }}{{/if}}", "a{{upper run.id}}{{ X }}"] {
        let error = |path: &str| rendered(&form.replace('X', path));
        assert_eq!(error("inputs.nope"), "error: inputs.nope has no value here", "{form}");
        assert_eq!(error("incident.key"), "error: incident.key has no value here", "{form}");
        assert_eq!(error("inputs.nothing"), "error: inputs.nothing is null", "{form}");
        assert_eq!(error("inputs.hosts"), "error: inputs.hosts is a list; use {{json inputs.hosts}}", "{form}");
        assert_eq!(error("inputs.map"), "error: inputs.map is a map; use {{json inputs.map}}", "{form}");
    }
}

#[test]
fn helpers_do_what_they_say() {
    check("{{json inputs.hosts}} {{json inputs.map}} {{json inputs.host}}", r#"["a","b"] {"k":1} "db-1""#);
    check("{{count inputs.hosts}} {{count inputs.map}}", "2 1");
    check("{{join inputs.hosts \", \"}} {{join inputs.hosts}}", "a, b a,b");
    check("{{default inputs.nope \"x\"}} {{default inputs.nothing 5}} {{default inputs.host \"x\"}}", "x 5 db-1");
    check("{{upper inputs.host}} {{lower \"ABC\"}} {{trim \" a \"}}", "DB-1 abc a");
    check("{{#if inputs.yes}}y{{else}}n{{/if}}{{#unless inputs.yes}}y{{/unless}}", "y");
    check("{{#if alert.labels.nope}}y{{else}}n{{/if}}", "n");
    check("{{#each alerts}}{{@index}}={{labels.host}} {{/each}}", "0=h1 1=h2 ");
    check("{{#each inputs.hosts}}{{this}}@{{@root.run.id}}/{{../inputs.host}} {{/each}}", "a@r1/db-1 b@r1/db-1 ");
    check("{{#each alerts as |a|}}{{a.labels.host}}{{/each}}{{#each inputs.map}}{{@key}}{{/each}}", "h1h2k");
    check("{{#with alert.labels}}{{cluster}}{{/with}} {{this.inputs.host}}", "eu db-1");
    check("{{#each run.list}}x{{else}}none{{/each}}", "none");
    check("{{#if (eq inputs.host \"db-1\")}}same{{/if}}", "same");
    check("{{lookup inputs \"host\"}}", "db-1");
    check("{{json inputs.nope}}", "error: json: inputs.nope has no value here");
    check("{{count inputs.host}}", "error: count: inputs.host is a string, not a list or map");
    check("{{default inputs.hosts 1}}", "error: the value is a list; use {{json the value}}");
}

#[test]
fn templates_that_are_not_of_the_language_are_refused() {
    for text in [
        "{{",
        "{{ inputs.host }",
        "{{#if run}}",
        "{{/if}}",
        "{{> part}}",
        "{{#> part}}{{/part}}",
        "{{#*inline \"a\"}}{{/inline}}",
        "{{log inputs.host}}",
        "{{nope inputs.host}}",
        "{{#nope run}}{{/nope}}",
        "{{* a}}",
    ] {
        assert!(rendered(text).starts_with("refused"), "{text}: {}", rendered(text));
    }
}

#[test]
fn rendering_is_bounded() {
    let list: Vec<Value> = (0..300).map(Value::from).collect();
    let long = "x".repeat(1000);
    let names = Scope([("inputs".to_owned(), json!({"l": list, "t": long}))].into());
    let error = |text: &str| Template::compile(text).unwrap().render(&names).unwrap_err().to_string();
    assert_eq!(
        error("{{#each inputs.l}}{{#each ../inputs.l}}{{@root.inputs.t}}{{/each}}{{/each}}"),
        "the rendered text is longer than 256 KiB"
    );
    assert_eq!(
        error(&format!("{{{{json {}1{}}}}}", "(json ".repeat(31), ")".repeat(31))),
        "the rendered text is longer than 256 KiB"
    );
    assert_eq!(error(&"{{ inputs.t }}".repeat(500)), "the rendered text is longer than 256 KiB");
    assert_eq!(
        error("{{#each inputs.l}}{{#each @root.inputs.l}}{{#each @root.inputs.l}}{{/each}}{{/each}}{{/each}}"),
        "the template goes over more than 50000 items"
    );
}

#[test]
fn conditions_see_json_as_it_is() {
    value("inputs.n + 1", json!(4));
    value("inputs.big", json!(9_007_199_254_740_993_i64));
    value("inputs.f * 2.0", json!(3.0));
    value("event.data.confidence >= 80", json!(true));
    value("alerts.map(a, a.labels.host)", json!(["h1", "h2"]));
    value("alerts.filter(a, a.labels.host == 'h1').size() == 1", json!(true));
    value("has(alert.labels.cluster) && !has(alert.labels.nope)", json!(true));
    value("'cluster' in alert.labels", json!(true));
    value("alert.labels['odd name']", json!("x"));
    value("steps['a-b'].state", json!("skipped"));
    value("inputs.nothing == null", json!(true));
    value("{'a': inputs.hosts, 'b': {'c': 1}}", json!({"a": ["a", "b"], "b": {"c": 1}}));
    value("inputs.host.startsWith('db') && inputs.host.matches('^db-[0-9]+$')", json!(true));
    value("['decoy-1']", json!(["decoy-1"]));
    value("true", json!(true));
    value("inputs.host.split('-')", json!(["db", "1"]));
    value("duration('90s')", json!("90s"));
    value("alerts[0].labels.host", json!("h1"));
    value("size(inputs.hosts) > 1 ? 'many' : 'one'", json!("many"));
}

#[test]
fn conditions_without_a_value_say_why() {
    fails("inputs.nope == 1", "no such key: nope");
    fails("incident.key == ''", "incident has no value here");
    fails("1 / 0", "division by zero of Int(1)");
    assert!(evaluated("inputs.host + 1").is_err());
    assert!(evaluated("0.0 / 0.0").is_err(), "NaN is not JSON");
    let bool = |text: &str| Expression::compile(text).unwrap().evaluate_bool(&scope());
    assert_eq!(bool("inputs.yes"), Ok(true));
    assert_eq!(bool("inputs.n").unwrap_err().to_string(), "gives an int, not a bool");
}

#[test]
fn the_place_of_a_syntax_error_is_its_byte() {
    assert_eq!(Expression::compile("inputs.host === 1").unwrap_err().offset, 14);
    assert_eq!(Expression::compile("'ü' == inputs.a )").unwrap_err().offset, 17);
}

#[test]
fn a_function_that_does_not_exist_is_refused_before_it_is_called() {
    let said = |text: &str| {
        let error = Expression::compile(text).unwrap_err();
        format!("{}: {}; {}", error.offset, error.message, error.help.unwrap_or_default())
    };
    assert_eq!(
        said("size(inputs.hosts) > 0 && [1, 2].min() == 1"),
        "33: no function is named min; did you mean math.least, as in math.least([1, 2])?"
    );
    assert_eq!(said("len(inputs.hosts)"), "0: no function is named len; did you mean size, as in size('abc')?");
    assert_eq!(
        said("inputs.host.toUpper()"),
        "12: no function is named toUpper; did you mean upperAscii, as in 'a'.upperAscii()?"
    );
    assert_eq!(
        said("inputs.host.startswith('a')"),
        "12: no function is named startswith; did you mean startsWith, as in 'abc'.startsWith('a')?"
    );
    assert_eq!(
        said("contains(inputs.host, 'a')"),
        "0: no function is named contains; did you mean contains, as in 'abc'.contains('b')?"
    );
    assert!(said("math.pow(1, 2)").starts_with("5: no function is named math.pow; "));
    assert!(said("base64.encode(inputs.host)").starts_with("7: no function is named encode; there is all, "));
    assert_eq!(said("inputs.hosts.map(h)"), "13: map is not called with 1 arguments; write it as in [1].map(n, n + 1)");
    assert!(said("frobnicate(1)").contains("there is bool, bytes, double, duration, dyn, has, int, "));
}

#[test]
fn a_json_text_is_parsed_within_limits() {
    let names = |text: Value| Scope([("result".to_owned(), json!({"stdout": text}))].into());
    let of = |expression: &str, text: &str| {
        let compiled = Expression::compile(expression).unwrap();
        compiled.evaluate(&names(text.into())).map_err(|error| error.to_string())
    };
    let parse = |text: &str| of("parse_json(result.stdout)", text);
    let whole = json!({"items": [{"n": 9_007_199_254_740_993_i64, "f": 1.5, "none": null}], "big": u64::MAX});
    assert_eq!(parse(&whole.to_string()), Ok(whole.clone()));
    assert_eq!(
        of("parse_json(result.stdout).items[0].n + 1", &whole.to_string()),
        Ok(json!(9_007_199_254_740_994_i64))
    );
    assert_eq!(of("parse_json(result.stdout).items.filter(i, i.f > 1.0).size()", &whole.to_string()), Ok(json!(1)));
    let error = |text: &str| parse(text).unwrap_err();
    assert_eq!(
        error("error: no such pod in this cluster, of course"),
        "parse_json: the text is no JSON: expected value at line 1 column 1; it begins with \"error: no such pod in this cluster, of c\""
    );
    assert_eq!(error(" "), "parse_json: the text is empty");
    assert!(error(&"[".repeat(1000)).contains("recursion limit exceeded"));
    assert!(
        error(&format!("[{}1]", "1,".repeat(20_000))).contains("a list or map of 20001 items; the limit here is 20000")
    );
    let nested = "parse_json(result.stdout).map(a, [1].map(b, a + b))";
    assert!(of(nested, &format!("[{}1]", "1,".repeat(1_000))).unwrap_err().contains("the limit here is 1000"));
    let thousand = format!("[{}1]", "1,".repeat(999));
    let again = of("[1, 2, 3].map(n, parse_json(result.stdout)[0])", &format!("[\"{}\"]", "x".repeat(1_000_000)));
    assert_eq!(again, Err("parse_json: more than 2097152 bytes in one expression".to_owned()));
    assert!(of("parse_json(result.stdout).map(n, parse_json(string(n)))", &thousand).is_ok());
    assert!(Expression::compile("parse_json(1)").unwrap().evaluate(&names(Value::Null)).is_err());
}

#[test]
fn a_line_break_inside_of_a_text_is_explained() {
    let error = Expression::compile("inputs.host.split('\n')[0]").unwrap_err();
    assert!(error.help.as_ref().is_some_and(|help| help.contains("write \\\\n there")), "{error:?}");
    assert_eq!(Expression::compile("inputs.host.split('\\n')[0]").unwrap().evaluate(&scope()), Ok(json!("db-1")));
}

#[test]
fn only_what_an_expression_names_is_looked_at() {
    let huge: Vec<Value> = (0..30_000).map(Value::from).collect();
    let names = Scope([("result".to_owned(), json!({"status": 200, "body": huge, "head": {"big": huge}}))].into());
    let evaluate = |text: &str| Expression::compile(text).unwrap().evaluate(&names);
    assert_eq!(evaluate("result.status == 200 && !has(result.nope)"), Ok(json!(true)));
    assert!(evaluate("size(result.body) > 1").unwrap_err().to_string().contains("the limit here is 20000"));
    assert!(evaluate("size(result) > 1").is_err(), "the whole is looked at");
}

#[test]
fn conditions_are_bounded_before_they_are_parsed() {
    let refused = |text: &str| Expression::compile(text).unwrap_err().to_string();
    assert_eq!(refused(&"1".repeat(3000)), "expression of 3000 bytes; the limit is 2048");
    assert_eq!(refused(&vec!["1"; 600].join("+")), "expression of more than 100 brackets or 200 operators");
    assert_eq!(refused(&format!("{}1{}", "[".repeat(40), "]".repeat(40))), "expression of 41 levels; the limit is 32");
    assert_eq!(refused(&"(".repeat(101)), "expression of more than 100 brackets or 200 operators");
    assert_eq!(refused(&vec!["1"; 100].join("+")), "expression of 100 levels; the limit is 32");
    assert_eq!(refused(&format!("{}true", "!".repeat(500))), "expression of more than 100 brackets or 200 operators");
    assert!(refused("a.all(x, a.all(y, a.all(z, true)))").contains("comprehensions"));
    assert!(refused("").contains("empty"));
    assert_eq!(refused(&vec!["1"; 900].join("\n")), "not a CEL expression: mismatched input '1'");
}

/// The deepest texts that the limits let through, on the stack of an ordinary thread.
#[test]
fn the_deepest_allowed_texts_do_not_exhaust_a_thread() {
    let run = || {
        let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
        for text in [
            vec!["1"; 150].join("+"),
            vec!["1"; 32].join("+"),
            format!("[1].map(x, [1].map(y, {}))", vec!["x"; 27].join("+")),
            format!("[1]{}", ".map(x, x)".repeat(15)),
            format!("{}2", "false ? 1 : ".repeat(31)),
            format!("inputs{}", ".a".repeat(31)),
            vec!["true"; 74].join("&&"),
            vec!["true ? 1 "; 70].join(":") + ": 2",
            format!("{}true", "!".repeat(150)),
            format!("{}1", "-".repeat(149)),
            nested("(", ")", 100),
            nested("[", "]", 31),
            "()".repeat(100),
            "(]".repeat(100),
            "[".repeat(100),
            "{".repeat(100),
            "f(".repeat(100),
            "a?".repeat(200),
            "a?b:".repeat(100),
            format!("\"{}", "\n(".repeat(100)),
            format!("r'\\'{}'", "(".repeat(99)),
            "!-".repeat(100),
            nested("[", "]", 16),
            nested("{'a':", "}", 16),
            format!("inputs{}", ".a".repeat(150)),
            format!("inputs{}", "[0]".repeat(31)),
            nested("size([", "])", 8),
            format!("{}1{}", "int(".repeat(16), ")".repeat(16)),
            vec!["(".to_owned(); 33].join(""),
            "a.".repeat(140) + "map(x, x)",
        ] {
            if let Ok(expression) = Expression::compile(&text) {
                let _ = expression.evaluate(&scope());
            }
        }
        let blocks = format!("{}x{}", "{{#if run}}".repeat(32), "{{/if}}".repeat(32));
        check(&blocks, "x");
        assert!(rendered(&"{{#each alerts}}".repeat(32)).starts_with("refused"));
        for text in [
            format!("{{{{json {}1{}}}}}", "(json ".repeat(31), ")".repeat(31)),
            format!("{{{{json {}{}}}}}", "[".repeat(31), "]".repeat(31)),
            format!("{{{{#if run}}}}{}{{{{/if}}}}", "{{else if run}}a".repeat(60)),
            "{{{{".repeat(2000),
            "{{#if a}}".repeat(64),
            "{{".repeat(4000),
            "\\{{".repeat(2700),
            "{{!--".repeat(1600),
        ] {
            let _ = rendered(&text);
        }
    };
    std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_value_template_keeps_types_places_and_secrets() {
    let text = r#"
playbook: p
inputs: {hosts: {type: list}, host: {type: string}}
detect:
  s:
    uses: http
    with:
      method: post
      url: "https://x/{{ inputs.host }}"
      query: {name: "{{ inputs.hosts }}", n: 5}
      headers: {Authorization: "Bearer {{ secrets.edr }}!", X-Host: "{{ inputs.host }}", N: 5, Both: "{{ secrets.a }}{{ inputs.host }}"}
      body: {hosts: "{{ inputs.hosts }}", text: "{{ inputs.n }}!", n: "{{ inputs.n }}", flag: true, braces: "{{ inputs.braces }}"}
"#;
    let plan = load("p.yaml", &text.replace("inputs.n ", "run.n ").replace("inputs.braces", "inputs.host"))
        .map(|loaded| loaded.plan);
    let error = plan.unwrap_err().to_string();
    assert!(error.contains("run has no n"), "{error}");

    let text = text.replace("host: {type: string}", "host: {type: string}, n: {type: int}, braces: {type: string}");
    let plan = load("p.yaml", &text).map_err(|error| error.to_string()).unwrap().plan;
    let stanch_playbook::Uses::Action(stanch_playbook::plan::Call { with, .. }) = &plan.steps[0].uses else {
        panic!("an action")
    };
    assert_eq!(
        with.render(&scope()).unwrap(),
        json!({
            "method": "POST",
            "url": "https://x/db-1",
            "query": {"name": ["a", "b"], "n": 5},
            "headers": {
                "Authorization": {"secret_text": [{"text": "Bearer "}, {"secret": "edr"}, {"text": "!"}]},
                "X-Host": "db-1",
                "N": "5",
                "Both": {"secret_text": [{"secret": "a"}, {"text": "db-1"}]},
            },
            "body": {"hosts": ["a", "b"], "text": "3!", "n": 3, "flag": true, "braces": "{{ run.id }}"},
        })
    );
    assert_eq!(with.roots(), ["inputs"]);
    let empty = Scope([("inputs".to_owned(), json!({"host": "h"}))].into());
    assert_eq!(with.render(&empty).unwrap_err().to_string(), "body.braces: inputs.braces has no value here");
}

#[test]
fn data_cannot_forge_a_secret_in_headers_or_env() {
    let text = r#"
playbook: p
inputs: {x: {type: map}}
detect:
  a: {uses: http, with: {url: u, headers: {A: "{{ inputs.x }}"}}}
  b: {uses: exec, with: {argv: [e]}, env: {A: "{{ inputs.x }}"}}
"#;
    let plan = load("p.yaml", text).map_err(|error| error.to_string()).unwrap().plan;
    let names = Scope([("inputs".to_owned(), json!({"x": {"secret_text": [{"secret": "edr"}]}}))].into());
    let stanch_playbook::Uses::Action(stanch_playbook::plan::Call { with, .. }) = &plan.steps[0].uses else {
        panic!("an action")
    };
    assert_eq!(with.render(&names).unwrap_err().to_string(), "headers.A: inputs.x is a map; use {{json inputs.x}}");
    let stanch_playbook::Uses::Action(stanch_playbook::plan::Call { env, .. }) = &plan.steps[1].uses else {
        panic!("an action")
    };
    assert_eq!(env.render(&names).unwrap_err().to_string(), "A: inputs.x is a map; use {{json inputs.x}}");
}
