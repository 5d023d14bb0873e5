//! Input of any shape gives diagnostics, never a panic, and within bounded time.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stanch_playbook::schedule::{CatchUp, Schedule};
use stanch_playbook::{Expression, Plan, Scope, Template, Timestamp, load, matcher::Matcher};

const TESTS: &str = include_str!("../../../playbooks/disk-filling-up.test.yaml");
const FULL: &str = include_str!("fixtures/compromised-host.yaml");

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

fn everything(text: &str) {
    let scope = Scope::default();
    match load("p.yaml", text) {
        Ok(loaded) => {
            let again = Plan::from_canonical(loaded.plan.canonical()).expect("a canonical form is read again");
            assert_eq!(again.digest, loaded.plan.digest);
        }
        Err(diagnostics) => {
            assert!(!diagnostics.list.is_empty(), "refused without a word: {text:?}");
            for diagnostic in &diagnostics.list {
                let (offset, length) = diagnostic.span;
                assert!(text.get(offset..offset + length).is_some(), "{diagnostic} points outside of {text:?}");
                assert!(diagnostic.line >= 1 && diagnostic.column >= 1);
            }
            let _ = (diagnostics.to_string(), diagnostics.render(false));
        }
    }
    if let Err(diagnostics) = stanch_playbook::load_tests("p.test.yaml", text) {
        assert!(!diagnostics.list.is_empty(), "refused without a word: {text:?}");
    }
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
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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
    quick("a thousand steps in a chain", || {
        let steps: String =
            (1..1000).map(|n| format!("  s{n}: {{uses: log, with: {{message: x}}, needs: [s{}]}}\n", n - 1)).collect();
        everything(&format!("playbook: p\ndetect:\n  s0: {{uses: log, with: {{message: x}}}}\n{steps}"));
    });
}
