//! Mermaid, as Markdown renderers draw it.

use super::{Drawing, shorten};

/// Draws.
pub fn draw(drawing: &Drawing) -> String {
    let mut out = String::from("flowchart TD\n");
    for (index, trigger) in drawing.triggers.iter().enumerate() {
        out.push_str(&format!("  t{index}([\"{}\"])\n", text(trigger)));
    }
    for (at, phase) in drawing.phases.iter().enumerate() {
        out.push_str(&format!("  subgraph p{at} [\"{}\"]\n", text(phase.name)));
        for (index, node) in phase.nodes.iter().enumerate() {
            let marks: String = node.marks.iter().map(|mark| format!("<br/>{}", text(mark))).collect();
            let (open, close) = if node.uses.starts_with("wait") { ("([", "])") } else { ("[", "]") };
            out.push_str(&format!(
                "    s{at}_{index}{open}\"{}<br/>{}{marks}\"{close}\n",
                text(&node.name),
                text(&node.uses)
            ));
        }
        for (index, node) in phase.nodes.iter().enumerate() {
            for need in &node.needs {
                out.push_str(&format!("    s{at}_{need} --> s{at}_{index}\n"));
            }
        }
        out.push_str("  end\n");
    }
    for index in 0..drawing.triggers.len() {
        if !drawing.phases.is_empty() {
            out.push_str(&format!("  t{index} --> p0\n"));
        }
    }
    for at in 1..drawing.phases.len() {
        out.push_str(&format!("  p{} --> p{at}\n", at - 1));
    }
    out
}

/// A text inside quotes: what means something to Mermaid or HTML is written as its code.
fn text(text: &str) -> String {
    let mut shown = String::new();
    for letter in shorten(text, 80).chars() {
        match letter {
            letter if letter.is_alphanumeric() || " ._-:/=,()'+?*$@".contains(letter) => shown.push(letter),
            letter => shown.push_str(&format!("#{};", u32::from(letter))),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_means_something_is_escaped() {
        let drawn = super::draw(&super::super::tests::hostile());
        assert!(drawn.contains("s0_0 --> s0_2\n") && drawn.contains("p0 --> p1\n"), "{drawn}");
        for line in drawn.lines().filter(|line| line.contains('"')) {
            assert_eq!(line.matches('"').count(), 2, "{line}");
            let inner = line.split('"').nth(1).unwrap().replace("<br/>", "");
            assert!(!inner.contains(['<', '>', '|', '{', '`', '[', '\u{1b}']), "{line}");
        }
    }
}
