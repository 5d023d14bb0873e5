use super::*;
use crate::conformance::records;
use crate::{Journal, MemoryJournal};

fn lines() -> Vec<String> {
    let mut journal = MemoryJournal::new();
    journal.append(Sequence(0), &records(1, 10)).unwrap();
    let mut out = Vec::new();
    export(&*journal.reader(), Sequence(1), &mut out).unwrap();
    String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
}

fn check(lines: &[String], scope: Scope) -> Result<Verified, Broken> {
    verify(lines.iter().flat_map(|line| [line, "\n"]).collect::<String>().as_bytes(), scope, None)
}

/// The sequence and line of the first record that does not hold, and why in brief.
fn broken(lines: &[String]) -> (u64, u64, String) {
    let broken = check(lines, Scope::Whole).unwrap_err();
    let reason = format!("{:?}", broken.reason);
    (broken.sequence.0, broken.line, reason.split(['(', ' ']).next().unwrap().to_owned())
}

/// Rewrites a line's envelope in canonical form, so that the chain alone can tell.
fn edit(line: &str, change: impl FnOnce(&mut Envelope)) -> String {
    let parsed: Line<'_> = serde_json::from_str(line).unwrap();
    let mut envelope = Envelope::decode(parsed.envelope.get().as_bytes()).unwrap();
    change(&mut envelope);
    line.replace(parsed.envelope.get(), &String::from_utf8(envelope.canonical()).unwrap())
}

#[test]
fn an_untouched_export_holds() {
    let verified = check(&lines(), Scope::Whole).unwrap();
    assert_eq!((verified.first, verified.last, verified.count), (Sequence(1), Sequence(10), 10));
    assert!(verified.contiguous && verified.from_start);
    assert_eq!(verified.redacted, 0);
}

#[test]
fn blank_lines_at_the_end_are_no_lines_and_elsewhere_are_named() {
    for end in [1, 2] {
        let blank = [lines(), vec![String::new(); end]].concat();
        assert_eq!(check(&blank, Scope::Whole).unwrap().count, 10);
    }
    let mut between = lines();
    between.insert(4, String::new());
    assert_eq!(broken(&between), (5, 5, "Blank".into()));
    assert!(matches!(check(&[String::new()], Scope::Whole).unwrap_err().reason, Reason::Empty));
}

#[test]
fn a_noted_head_is_found_where_it_is_and_shows_that_an_end_was_cut_off() {
    let lines = lines();
    let text = |lines: &[String]| lines.iter().flat_map(|line| [line, "\n"]).collect::<String>();
    let (whole, cut) = (text(&lines), text(&lines[..6]));
    let head = |text: &str| verify(text.as_bytes(), Scope::Whole, None).unwrap().head_hash;
    let noted = |text: &str, head| verify(text.as_bytes(), Scope::Whole, Some(head)).unwrap().noted;
    assert_eq!(noted(&whole, head(&whole)), Some(Sequence(10)));
    assert_eq!(noted(&whole, head(&cut)), Some(Sequence(6)));
    assert_eq!(noted(&cut, head(&whole)), None);
}

#[test]
fn an_export_that_starts_later_says_that_the_rest_is_taken_on_trust() {
    let verified = check(&lines()[3..], Scope::Whole).unwrap();
    assert_eq!((verified.first, verified.count, verified.from_start), (Sequence(4), 7, false));
}

#[test]
fn a_changed_payload_or_salt_is_found_where_it_is() {
    let mut changed = lines();
    changed[4] = changed[4].replace("skipped\",\"reason\":\"a", "skipped\",\"reason\":\"b");
    assert_ne!(changed, lines());
    assert_eq!(broken(&changed), (5, 5, "Payload".into()));

    let mut changed = lines();
    let (start, salt) = changed[4].split_once("\"salt\":\"").unwrap();
    let digit = if salt.starts_with('0') { '1' } else { '0' };
    changed[4] = format!("{start}\"salt\":\"{digit}{}", &salt[1..]);
    assert_eq!(broken(&changed), (5, 5, "Payload".into()));
}

#[test]
fn a_changed_envelope_is_found_by_the_one_after_it() {
    for at in [0, 4, 8] {
        let mut changed = lines();
        changed[at] = edit(&changed[at], |envelope| envelope.outcome = Some("succeeded".into()));
        assert_eq!(broken(&changed), (at as u64 + 1, at as u64 + 1, "Chain".into()));
    }
}

#[test]
fn a_changed_prev_is_found_where_it_is() {
    let mut changed = lines();
    changed[4] = edit(&changed[4], |envelope| envelope.prev = Hash([9; 32]));
    assert_eq!(broken(&changed), (5, 5, "Chain".into()));
    changed = lines();
    changed[0] = edit(&changed[0], |envelope| envelope.prev = Hash([9; 32]));
    assert_eq!(broken(&changed), (1, 1, "Start".into()));
}

#[test]
fn removed_repeated_and_reordered_records_are_found() {
    let mut changed = lines();
    changed.remove(4);
    assert_eq!(broken(&changed), (5, 5, "Missing".into()));
    let mut changed = lines();
    changed.insert(4, changed[3].clone());
    assert_eq!(broken(&changed), (5, 5, "OutOfOrder".into()));
    let mut changed = lines();
    changed.swap(4, 5);
    assert_eq!(broken(&changed), (5, 5, "Missing".into()));
}

#[test]
fn other_spellings_of_the_same_record_are_found() {
    let spellings: [&dyn Fn(&str) -> String; 5] = [
        &|line| line.replace("\"payload\":{", "\"payload\": {"),
        &|line| format!("{line} "),
        &|line| line.replace("\"actor\":\"engine\",", "\"actor\":\"\\u0065ngine\","),
        &|line| {
            let line: serde_json::Map<_, _> = serde_json::from_str(line).unwrap();
            serde_json::to_string(&line.into_iter().rev().collect::<std::collections::BTreeMap<_, _>>())
                .unwrap()
                .replace("{\"envelope\":{", "{\"envelope\": {")
        },
        &|line| line.replace("Z\"}", "+00:00\"}"),
    ];
    for (at, spelling) in spellings.iter().enumerate() {
        let mut changed = lines();
        changed[4] = spelling(&changed[4]);
        assert_ne!(changed, lines(), "spelling {at}");
        let (sequence, line, _) = broken(&changed);
        assert_eq!((sequence, line), (5, 5), "spelling {at}");
    }
}

#[test]
fn a_line_cut_off_in_the_middle_is_found() {
    let whole = lines().join("\n");
    for cut in 1..200 {
        let broken = verify(&whole.as_bytes()[..whole.len() - cut], Scope::Whole, None).unwrap_err();
        assert_eq!((broken.sequence, broken.line), (Sequence(10), 10), "{broken}");
        assert!(matches!(broken.reason, Reason::CutOff), "{broken}");
    }
    assert_eq!(verify(whole.as_bytes(), Scope::Whole, None).unwrap().count, 10);
}

#[test]
fn garbage_is_found_and_an_empty_file_does_not_hold() {
    for garbage in ["", "{}", "null", "[[[[", "\u{0}", "{\"envelope\":{},\"payload\":{},\"salt\":\"\"}"] {
        let mut changed = lines();
        changed.insert(4, garbage.to_owned());
        assert_eq!(broken(&changed).0, 5, "{garbage:?}");
    }
    assert!(matches!(verify(&b"\xff\xfe\n"[..], Scope::Whole, None).unwrap_err().reason, Reason::Garbage(_)));
    assert!(matches!(verify(&b""[..], Scope::Whole, None).unwrap_err().reason, Reason::Empty));
}

#[test]
fn a_deleted_payload_is_counted_and_breaks_nothing() {
    let mut changed = lines();
    let end = changed[4].find(",\"payload\":{").unwrap();
    changed[4] = format!("{}}}", &changed[4][..end]);
    let verified = check(&changed, Scope::Whole).unwrap();
    assert_eq!((verified.count, verified.redacted), (10, 1));
    let salt = lines()[4].find(",\"salt\"").unwrap();
    changed[4] = lines()[4][..salt].to_owned() + "}";
    assert_eq!(broken(&changed), (5, 5, "Payload".into()));
}

#[test]
fn an_excerpt_may_have_gaps_and_is_checked_all_the_same() {
    let mut excerpt = lines();
    excerpt.drain(3..6);
    let verified = check(&excerpt, Scope::Excerpt).unwrap();
    assert_eq!((verified.count, verified.last, verified.contiguous), (7, Sequence(10), false));
    let mut changed = excerpt.clone();
    changed[4] = edit(&changed[4], |envelope| envelope.outcome = None);
    assert_eq!(check(&changed, Scope::Excerpt).unwrap_err().sequence, Sequence(8));
    excerpt.swap(1, 5);
    assert!(matches!(check(&excerpt, Scope::Excerpt).unwrap_err().reason, Reason::OutOfOrder(_)));
}

proptest::proptest! {
    #[test]
    fn any_one_changed_byte_of_a_payload_or_envelope_is_found(line in 0..9_usize, at in 0..10_000_usize, byte: u8) {
        let mut changed: Vec<Vec<u8>> = lines().into_iter().map(String::into_bytes).collect();
        let at = at % changed[line].len();
        proptest::prop_assume!(changed[line][at] != byte);
        changed[line][at] = byte;
        let broken = verify(&changed.join(&b'\n')[..], Scope::Whole, None).unwrap_err();
        proptest::prop_assert!(broken.sequence.0 <= line as u64 + 2, "{}", broken);
    }
}
