//! For terminals: one line a step, with what it waits for.

use super::Drawing;
use crate::terminal::{OUT, Style, cut, inert, pad, width};

/// Draws.
pub fn draw(drawing: &Drawing) -> String {
    let mut out = format!("{}\n", OUT.paint(Style::Bold, &inert(&drawing.title)));
    for trigger in &drawing.triggers {
        out.push_str(&format!("  starts by {}\n", inert(trigger)));
    }
    let nodes = || drawing.phases.iter().flat_map(|phase| &phase.nodes);
    let deepest = drawing.phases.iter().map(|phase| phase.layers().len()).max().unwrap_or(1);
    let names = nodes().map(|node| width(&node.name)).max().unwrap_or(0) + 3 * (deepest - 1);
    let uses = nodes().map(|node| width(&inert(&node.uses))).max().unwrap_or(0).min(40);
    for (index, phase) in drawing.phases.iter().enumerate() {
        let last_phase = index + 1 == drawing.phases.len();
        out.push_str(&format!(
            "  │\n  {} {}\n",
            if last_phase { "└─┬" } else { "├─┬" },
            OUT.paint(Style::Bold, phase.name)
        ));
        let rail = if last_phase { " " } else { "│" };
        let layers = phase.layers();
        for (depth, layer) in layers.iter().enumerate() {
            for (place, node) in layer.iter().enumerate() {
                let node = &phase.nodes[*node];
                let last = depth + 1 == layers.len() && place + 1 == layer.len();
                let branch = if last { "└" } else { "├" };
                let mut notes = Vec::new();
                if !node.needs.is_empty() {
                    let needs: Vec<&str> = node.needs.iter().map(|need| phase.nodes[*need].name.as_str()).collect();
                    notes.push(format!("after {}", needs.join(", ")));
                }
                notes.extend(node.marks.iter().cloned());
                let line = format!(
                    "  {rail} {branch}─ {}  {}  {}",
                    pad(&format!("{}{}", "   ".repeat(depth), node.name), names),
                    pad(&cut(&inert(&node.uses), uses), uses),
                    inert(&notes.join("; ")),
                );
                out.push_str(cut(&line, OUT.columns.unwrap_or(usize::MAX)).trim_end());
                out.push('\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_step_has_its_line_and_nothing_steers_the_terminal() {
        let drawn = super::draw(&super::super::tests::hostile());
        assert!(drawn.contains("├─ a") && drawn.contains("└─    c") && drawn.contains("after a, b"), "{drawn}");
        assert!(!drawn.contains('\u{1b}'), "{drawn}");
    }
}
