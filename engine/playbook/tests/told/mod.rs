//! What each of some playbooks is told.

use stanch_playbook::load;

/// Each case with what is said about it, as one text.
pub fn told(cases: &[(&str, String)]) -> String {
    let mut out = Vec::new();
    for (name, text) in cases {
        out.push(format!("# {name}"));
        match load("p.yaml", text) {
            Ok(loaded) if loaded.warnings.is_empty() => out.push("(nothing)".to_owned()),
            Ok(loaded) => out.extend(loaded.warnings.iter().map(ToString::to_string)),
            Err(diagnostics) => {
                assert!(!diagnostics.list.is_empty(), "{name}: refused without a word");
                out.push(diagnostics.to_string());
            }
        }
    }
    out.join("\n")
}
