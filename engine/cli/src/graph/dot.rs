//! Graphviz' language.

use super::{Drawing, shorten};

/// Draws.
pub fn draw(drawing: &Drawing) -> String {
    let mut out = format!("digraph {} {{\n", quoted(&[&drawing.title]));
    out.push_str("  rankdir=TB; compound=true; newrank=true;\n  node [shape=box, style=rounded, fontname=\"sans-serif\", fontsize=11];\n");
    for (index, trigger) in drawing.triggers.iter().enumerate() {
        out.push_str(&format!("  t{index} [shape=plaintext, label={}];\n", quoted(&[trigger])));
    }
    for (at, phase) in drawing.phases.iter().enumerate() {
        out.push_str(&format!("  subgraph cluster_{at} {{\n    label={};\n", quoted(&[phase.name])));
        for (index, node) in phase.nodes.iter().enumerate() {
            let mut lines = vec![node.name.as_str(), node.uses.as_str()];
            lines.extend(node.marks.iter().map(String::as_str));
            out.push_str(&format!("    s{at}_{index} [label={}];\n", quoted(&lines)));
        }
        for (index, node) in phase.nodes.iter().enumerate() {
            for need in &node.needs {
                out.push_str(&format!("    s{at}_{need} -> s{at}_{index};\n"));
            }
        }
        out.push_str("  }\n");
    }
    // Between phases, from a last step to a first one, clipped at the borders of both.
    for index in 0..drawing.triggers.len() {
        if !drawing.phases.is_empty() {
            out.push_str(&format!("  t{index} -> s0_0 [lhead=cluster_0];\n"));
        }
    }
    for at in 1..drawing.phases.len() {
        let last = drawing.phases[at - 1].layers().last().and_then(|layer| layer.first().copied()).unwrap_or(0);
        let before = at - 1;
        out.push_str(&format!("  s{before}_{last} -> s{at}_0 [ltail=cluster_{before}, lhead=cluster_{at}];\n"));
    }
    out.push_str("}\n");
    out
}

/// A quoted text of several lines.
fn quoted(lines: &[&str]) -> String {
    let lines: Vec<String> =
        lines.iter().map(|line| shorten(line, 80).replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_and_backslashes_are_escaped() {
        let drawn = super::draw(&super::super::tests::hostile());
        assert!(drawn.contains("s0_0 -> s0_2;\n") && drawn.contains("ltail=cluster_0, lhead=cluster_1"), "{drawn}");
        assert!(drawn.contains(r#"c == \"]]>\" \\ |"#) && !drawn.contains('\u{1b}'), "{drawn}");
    }
}
