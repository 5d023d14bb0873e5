//! SVG, drawn here: layers from above, phases as bands. It holds no script and asks for nothing from outside.

use std::fmt::Write as _;

use super::{Drawing, Node, shorten};
use crate::terminal::width;
use crate::xml::escape;

const LETTER: usize = 7;
const LINE: usize = 16;
const PAD: usize = 10;
const GAP: usize = 24;
const MARGIN: usize = 16;
const TEXT: usize = 48;

struct Box {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
    lines: Vec<String>,
}

/// Draws.
pub fn draw(drawing: &Drawing) -> String {
    let mut body = String::new();
    let mut widest = 240;
    let mut y = MARGIN + LINE;
    text(&mut body, MARGIN, y, "title", &shorten(&drawing.title, TEXT));
    for trigger in &drawing.triggers {
        y += LINE;
        let line = format!("starts by {}", shorten(trigger, 80));
        widest = widest.max(width(&line) * LETTER);
        text(&mut body, MARGIN, y, "mark", &line);
    }
    y += PAD;
    let mut bands = Vec::new();
    for phase in &drawing.phases {
        let top = y;
        y += PAD + LINE;
        let mut boxes: Vec<Option<Box>> = phase.nodes.iter().map(|_| None).collect();
        for (depth, layer) in phase.layers().iter().enumerate() {
            if depth > 0 {
                y += GAP;
            }
            let mut x = MARGIN + PAD;
            let mut tallest = 0;
            for index in layer {
                let lines = lines(&phase.nodes[*index]);
                let size = lines.iter().map(|line| width(line)).max().unwrap_or(0) * LETTER + 2 * PAD;
                let height = lines.len() * LINE + PAD;
                tallest = tallest.max(height);
                boxes[*index] = Some(Box { x, y: y + PAD / 2, width: size, height, lines });
                x += size + GAP;
            }
            widest = widest.max(x);
            y += tallest + PAD / 2;
        }
        y += PAD;
        bands.push((phase, top, y - top, boxes));
        y += GAP / 2;
    }
    for (phase, top, height, boxes) in &bands {
        let wide = widest - MARGIN + PAD;
        writeln!(
            body,
            "<rect class=\"phase\" x=\"{MARGIN}\" y=\"{top}\" width=\"{wide}\" height=\"{height}\" rx=\"6\"/>"
        )
        .expect("a string takes all");
        text(&mut body, MARGIN + PAD, top + LINE, "name", phase.name);
        for (node, of) in phase.nodes.iter().zip(boxes) {
            for need in &node.needs {
                if let (Some(from), Some(to)) = (&boxes[*need], of) {
                    arrow(&mut body, from, to);
                }
            }
        }
        for one in boxes.iter().flatten() {
            let Box { x, y, width, height, lines } = one;
            writeln!(body, "<rect class=\"step\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"4\"/>")
                .expect("a string takes all");
            for (index, line) in lines.iter().enumerate() {
                let class = if index == 0 { "name" } else { "mark" };
                text(&mut body, x + PAD, y + LINE * (index + 1) - 1, class, line);
            }
        }
    }
    let (wide, high) = (widest + MARGIN + PAD, y + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" role=\"img\">\n\
         <title>{}</title>\n\
         <style>text{{font:12px ui-monospace,monospace;fill:#1c2733}}.title{{font-weight:bold;font-size:14px}}\
         .name{{font-weight:bold}}.mark{{fill:#5b6875}}.phase{{fill:#f3f5f8;stroke:#d4dae1}}\
         .step{{fill:#fff;stroke:#4a6fa5}}.edge{{fill:none;stroke:#4a6fa5;marker-end:url(#tip)}}</style>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\" fill=\"#4a6fa5\"/></marker></defs>\n\
         <rect width=\"{wide}\" height=\"{high}\" fill=\"#fff\"/>\n{body}</svg>\n",
        escape(&shorten(&drawing.title, TEXT)),
    )
}

fn lines(node: &Node) -> Vec<String> {
    let rest = std::iter::once(&node.uses).chain(&node.marks).map(|line| shorten(line, TEXT));
    std::iter::once(shorten(&node.name, TEXT)).chain(rest).collect()
}

fn text(body: &mut String, x: usize, y: usize, class: &str, line: &str) {
    writeln!(body, "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(line)).expect("a string takes all");
}

fn arrow(body: &mut String, from: &Box, to: &Box) {
    let (x1, y1) = (from.x + from.width / 2, from.y + from.height);
    let (x2, y2) = (to.x + to.width / 2, to.y);
    let middle = y1.midpoint(y2);
    writeln!(body, "<path class=\"edge\" d=\"M{x1} {y1}C{x1} {middle} {x2} {middle} {x2} {y2}\"/>")
        .expect("a string takes all");
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_cannot_break_out_of_their_elements() {
        let drawn = super::draw(&super::super::tests::hostile());
        assert_eq!(drawn.matches("class=\"step\"").count(), 4, "{drawn}");
        assert_eq!(drawn.matches("class=\"edge\"").count(), 2, "{drawn}");
        assert!(drawn.contains("p&lt;script&gt;") && !drawn.contains("<script"), "{drawn}");
        // Every < begins an element that is drawn here.
        for part in drawn.split('<').skip(1) {
            let name: String =
                part.chars().take_while(|letter| letter.is_ascii_alphabetic() || *letter == '/').collect();
            let known = ["svg", "title", "style", "defs", "marker", "path", "rect", "text"];
            assert!(known.contains(&name.trim_matches('/')), "{name}");
        }
    }
}
