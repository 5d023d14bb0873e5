//! Input of any shape gives diagnostics, never a panic, and within bounded time.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::FileFailurePersistence;
use stanch_playbook::schedule::{CatchUp, Schedule};
use stanch_playbook::{
    Catalogue, Diagnostics, Expression, Plan, Scope, Template, Timestamp, check_set, load_with, matcher::Matcher,
    reference,
};

const TESTS: &str = include_str!("../../../playbooks/general/suspicious-login.test.yaml");
const FULL: &str = include_str!("fixtures/compromised-host.yaml");

/// Real documents of every form, to be damaged.
fn documents() -> Vec<String> {
    let mut documents = vec![FULL.to_owned(), include_str!("fixtures/whole-language.yaml").to_owned()];
    let mut block: Option<String> = None;
    for line in reference().lines() {
        match (&mut block, line) {
            (Some(text), "```") => {
                documents.push(std::mem::take(text));
                block = None;
            }
            (Some(text), line) => *text += &format!("{line}\n"),
            (None, "```yaml") => block = Some(String::new()),
            (None, _) => {}
        }
    }
    documents
}

/// The catalogue of the reference, so that its names have a meaning.
static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let mut catalogue = Catalogue::new();
    for text in documents().iter().filter(|text| text.contains("\nactions:\n")) {
        catalogue.load("c.yaml", text).expect("the reference's catalogue");
    }
    catalogue
});

/// What a person, or a bad editor, does to a document.
#[derive(Debug, Clone)]
enum Damage {
    /// A line goes.
    Drop(Index),
    /// A line stands twice.
    Repeat(Index),
    /// A line moves to the right or to the left.
    Indent(Index, i8),
    /// What stands after a colon becomes something else.
    Value(Index, String),
    /// A word becomes a word of the document.
    Word(Index, Index),
    /// A part of one document stands in another.
    Graft(Index, Index, Index),
    /// Bytes become something else.
    Bytes(Index, u8, String),
}

fn damage() -> impl Strategy<Value = Damage> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Damage::Drop),
        index().prop_map(Damage::Repeat),
        (index(), -4i8..5).prop_map(|(line, by)| Damage::Indent(line, by)),
        (index(), value()).prop_map(|(line, value)| Damage::Value(line, value)),
        (index(), index()).prop_map(|(one, other)| Damage::Word(one, other)),
        (index(), index(), index()).prop_map(|(document, from, at)| Damage::Graft(document, from, at)),
        (index(), 0u8..20, fragments()).prop_map(|(at, length, with)| Damage::Bytes(at, length, with)),
    ]
}

/// A value of some type, right or wrong.
fn value() -> impl Strategy<Value = String> {
    let words = [
        "5",
        "-1",
        "1.5",
        "true",
        "null",
        "[]",
        "{}",
        "[a]",
        "{a: b}",
        "30s",
        "999999999d",
        "0s",
        "''",
        "\"{{ item }}\"",
        "\"{{ steps.a.outputs.b }}\"",
        "item",
        "result.a",
        "steps.a.items.map(i, i.outputs.b)",
        "wait",
        "approval",
        "playbook",
        "undo",
        "http",
        "revoke_token",
        "token_used_twice",
        "resolved",
        "{nats: {subject: a, if: item}}",
        "verify",
        "undo",
        "group:a",
        "local",
        "99999999999999999999",
        "~",
        "*a",
        "&a [*a]",
        "!b c",
        "|",
        ">-",
        "/etc/x",
        "../a",
        "\u{feff}",
        "☃",
        "{uses: exec, with: {argv: [a]}}",
        "{uses: http, with: {url: x}, until: result.status == 1, after: 8h}",
        "[{after: 5m, people: [a]}]",
        "revoke_token, , block_ip",
    ];
    prop_oneof![prop::sample::select(words.to_vec()).prop_map(str::to_owned), fragments()]
}

fn damaged(text: &str, damage: &Damage, documents: &[String]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return text.to_owned();
    }
    match damage {
        Damage::Drop(line) => drop(lines.remove(line.index(lines.len()))),
        Damage::Repeat(line) => {
            let at = line.index(lines.len());
            lines.insert(at, lines[at].clone());
        }
        Damage::Indent(line, by) => {
            let at = line.index(lines.len());
            lines[at] = match usize::try_from(*by) {
                Ok(by) => format!("{}{}", " ".repeat(by), lines[at]),
                Err(_) => lines[at].chars().skip(by.unsigned_abs().into()).collect(),
            };
        }
        Damage::Value(line, value) => {
            let at = line.index(lines.len());
            let colons: Vec<usize> = lines[at].match_indices(": ").map(|(at, _)| at).collect();
            if !colons.is_empty() {
                let colon = colons[line.index(colons.len())];
                let end = lines[at][colon + 2..].find([',', '}']).map_or(lines[at].len(), |end| colon + 2 + end);
                lines[at].replace_range(colon + 2..end, value);
            }
        }
        Damage::Word(one, other) => {
            let word = |letter: char| !letter.is_alphanumeric() && letter != '_';
            let words: Vec<&str> = text.split(word).filter(|text| !text.is_empty()).collect();
            if !words.is_empty() {
                return text.replacen(words[one.index(words.len())], words[other.index(words.len())], 1);
            }
        }
        Damage::Graft(document, from, at) => {
            let other: Vec<&str> = documents[document.index(documents.len())].lines().collect();
            let from = from.index(other.len());
            let part = other[from..other.len().min(from + 6)].iter().map(|line| (*line).to_owned());
            let at = at.index(lines.len());
            lines.splice(at..at, part);
        }
        Damage::Bytes(at, length, with) => {
            let mut bytes = text.as_bytes().to_vec();
            let at = at.index(bytes.len().max(1));
            let end = (at + usize::from(*length)).min(bytes.len());
            bytes.splice(at..end, with.bytes());
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
    lines.join("\n") + "\n"
}

/// Pieces that mean something to one of the parsers.
fn fragments() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{",
        "}}",
        "{{#if ",
        "{{/if}}",
        "{{#each ",
        "{{else}}",
        "{{{",
        "}}}",
        "\\{{",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ":",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "\"",
        "'",
        "|",
        ">",
        "&a ",
        "*a",
        "!x ",
        "<<",
        "#",
        ",",
        "inputs",
        "inputs.hosts",
        "steps.",
        "alert.labels.",
        ".map(x, ",
        "parse_json(",
        ".min(",
        "math.greatest(",
        "x",
        "1",
        "0.5",
        "-",
        "+",
        "&&",
        "||",
        "?",
        "==",
        "in ",
        "@root.",
        "../",
        "this",
        "json ",
        "~",
        "é",
        "☃",
        "\t",
        "\u{0}",
        "\u{feff}",
        "playbook: p",
        "detect:",
        "uses: log",
        "with:",
        "secrets.a",
        "null",
        "true",
        "* * * * *",
        "@daily",
        "=~",
        "!=",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Whether what is said points into the text, and can be shown.
fn shown(diagnostics: &Diagnostics, text: &str) {
    assert!(!diagnostics.list.is_empty(), "refused without a word: {text:?}");
    for diagnostic in &diagnostics.list {
        let (offset, length) = diagnostic.span;
        assert!(text.get(offset..offset + length).is_some(), "{diagnostic} points outside of {text:?}");
        assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
    }
    let _ = (diagnostics.to_string(), diagnostics.render(false));
}

fn everything(text: &str) {
    let start = Instant::now();
    let scope = Scope::default();
    match load_with("p.yaml", text, &CATALOGUE) {
        Ok(loaded) => {
            let plans: Vec<&Plan> = loaded.iter().map(|one| &one.plan).collect();
            for plan in &plans {
                let again = Plan::from_canonical(plan.canonical()).expect("a canonical form is read again");
                assert_eq!((again.digest, again.canonical()), (plan.digest, plan.canonical()));
                assert_eq!(format!("{:?}", again.steps), format!("{:?}", plan.steps));
            }
            let _ = check_set(&plans);
        }
        Err(diagnostics) => shown(&diagnostics, text),
    }
    if let Err(diagnostics) = CATALOGUE.clone().load("d.yaml", text) {
        shown(&diagnostics, text);
    }
    if let Err(diagnostics) = stanch_playbook::load_tests("p.test.yaml", text) {
        shown(&diagnostics, text);
    }
    assert!(start.elapsed() < Duration::from_secs(30), "took {:?}: {text:?}", start.elapsed());
    if let Ok(template) = Template::compile(text) {
        let _ = template.render(&scope);
    }
    if let Ok(expression) = Expression::compile(text) {
        let _ = expression.evaluate(&scope);
    }
    let _ = Matcher::parse(text);
    if let Ok(schedule) = Schedule::parse(text, "Europe/London", CatchUp::None) {
        let _ = schedule.next_after(Timestamp::EPOCH);
    }
    let _ = stanch_playbook::parse_duration(text);
}

proptest! {
    // What once failed is kept beside the tests, and tried first.
    #![proptest_config(ProptestConfig { failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/robust.regressions"))), ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        everything(&text);
    }

    #[test]
    fn any_mixture_of_meaningful_pieces_is_survived(text in fragments()) {
        everything(&text);
    }

    #[test]
    fn a_damaged_playbook_is_survived(at in 0..FULL.len(), length in 0usize..40, with in fragments()) {
        let mut bytes = FULL.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.into_bytes());
        everything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn documents_that_were_edited_badly_are_survived(document in any::<Index>(), edits in prop::collection::vec(damage(), 1..5)) {
        let documents = documents();
        let mut text = documents[document.index(documents.len())].clone();
        for edit in &edits {
            text = damaged(&text, edit, &documents);
        }
        everything(&text);
    }

    #[test]
    fn templates_and_conditions_of_any_mixture_are_survived_over_values(text in fragments(), value in value()) {
        let json = serde_json::json!({"a": [1, "x", null, {"b": value}], "labels": {"x": value}});
        let roots = stanch_playbook::evaluate::ROOTS.map(|root| (root.to_owned(), json.clone()));
        let scope = Scope(roots.into());
        for text in [text.clone(), format!("{{{{ {text} }}}}"), format!("inputs.a.map(x, {text})"), format!("steps[\"{text}\"]")] {
            if let Ok(template) = Template::compile(&text) {
                let _ = template.render(&scope);
            }
            if let Ok(expression) = Expression::compile(&text) {
                let _ = expression.evaluate(&scope);
            }
        }
    }

    #[test]
    fn a_damaged_test_file_is_survived(at in 0..TESTS.len(), length in 0usize..40, with in fragments()) {
        let mut bytes = TESTS.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, with.into_bytes());
        everything(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_duration_is_shown_as_it_is_read(millis in 0..10 * 365 * 86_400_000u64) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(stanch_playbook::parse_duration(&stanch_playbook::time::shown_duration(duration)).unwrap(), duration);
    }

    #[test]
    fn schedules_strictly_increase(minute in 0..60u32, hour in 0..24u32, start in 0i64..4_000_000_000, zone in 0usize..chrono_tz::TZ_VARIANTS.len()) {
        let zone = chrono_tz::TZ_VARIANTS[zone].name();
        let schedule = Schedule::parse(&format!("{minute} {hour} * * *"), zone, CatchUp::None).unwrap();
        let mut at = Timestamp::from_millis(start * 1000);
        for _ in 0..3 {
            let Some(next) = schedule.next_after(at) else { break };
            prop_assert!(next > at);
            prop_assert!(next.since(at) <= Duration::from_secs(50 * 3600), "{} to {} in {}", at, next, zone);
            at = next;
        }
    }
}

/// Seconds where the work is microseconds: a test that only a blow-up can fail.
fn quick(what: &str, run: impl FnOnce()) {
    let start = Instant::now();
    run();
    assert!(start.elapsed() < Duration::from_secs(10), "{what} took {:?}", start.elapsed());
}

#[test]
fn texts_made_to_hurt_are_refused_or_done_quickly() {
    let step = |with: &str| format!("playbook: p\ndetect:\n  a: {{uses: log, with: {{message: {with}}}}}\n");
    quick("nested sequences", || everything(&"[".repeat(100_000)));
    quick("nested maps", || everything(&"{a: ".repeat(50_000)));
    quick("nested keys", || everything(&"? ".repeat(50_000)));
    quick("block nesting", || everything(&(0..2000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>()));
    quick("anchors", || {
        everything(&format!("a: &a [x]\n{}", (0..5000).map(|n| format!("k{n}: &b{n} [*a, *a]\n")).collect::<String>()))
    });
    quick("alias chains", || {
        let chain: String = (1..3000).map(|n| format!("k{n}: &b{n} [*b{}]\n", n - 1)).collect();
        everything(&format!("k0: &b0 [x]\n{chain}"));
    });
    quick("many keys", || everything(&(0..15_000).map(|n| format!("k{n}: 1\n")).collect::<String>()));
    quick("a large text", || everything(&format!("playbook: p\ndescription: \"{}\"\n", "a ".repeat(500_000))));
    quick("braces", || everything(&step(&format!("\"{}\"", "{{".repeat(4000)))));
    quick("subexpressions", || everything(&step(&format!("\"{{{{json {}\"", "(json ".repeat(1000)))));
    quick("conditions", || everything(&"a?b:".repeat(500)));
    quick("comprehensions", || everything(&"a.map(x, ".repeat(200)));
    quick("regular expressions", || everything(&format!("a=~\"{}\"", "(a|b)*{100}".repeat(50))));
    quick("thousands of wrong names", || {
        let wrong: String = (0..900)
            .map(|n| {
                format!(
                    "  step_number_{n}: {{uses: log, with: {{message: '{}'}}}}\n",
                    "{{ steps.step_numbr_x.state }}".repeat(30)
                )
            })
            .collect();
        everything(&format!("playbook: p\ndetect:\n{wrong}"));
    });
    quick("a list of a catalogue's names", || {
        everything(&format!("playbook: p\ncontain: {}\n", "block_ip, ".repeat(3000)));
        everything(&format!("playbook: p\ncontain: [{}]\n", "block_ip, ".repeat(3000)));
    });
    quick("many playbooks in one document", || {
        let many: String =
            (0..1500).map(|n| format!("  p{n}: {{detect: token_used_twice, contain: block_ip}}\n")).collect();
        everything(&format!("playbooks:\n{many}"));
    });
    quick("playbooks that all run each other", || {
        let calls: String = (0..60).map(|n| format!("s{n}: {{uses: playbook, with: {{playbook: p{n}}}}}, ")).collect();
        let many: String = (0..60).map(|n| format!("  p{n}: {{contain: {{{calls}}}}}\n")).collect();
        everything(&format!("playbooks:\n{many}"));
    });
    quick("a thousand steps in a chain", || {
        let steps: String =
            (1..1000).map(|n| format!("  s{n}: {{uses: log, with: {{message: x}}, needs: [s{}]}}\n", n - 1)).collect();
        everything(&format!("playbook: p\ndetect:\n  s0: {{uses: log, with: {{message: x}}}}\n{steps}"));
    });
}
