//! Pictures of playbooks: steps in layers by what they need, phases one after the other.
//!
//! Absent: anything about plans. Every text is escaped for the form it stands in.

pub mod ascii;
pub mod dot;
pub mod mermaid;
pub mod svg;

/// What is drawn.
#[derive(Debug)]
pub struct Drawing {
    /// The playbook's name.
    pub title: String,
    /// What starts it.
    pub triggers: Vec<String>,
    /// Its phases that have steps, in order.
    pub phases: Vec<PhaseDrawing>,
}

/// One phase.
#[derive(Debug)]
pub struct PhaseDrawing {
    /// Its name.
    pub name: &'static str,
    /// Its steps.
    pub nodes: Vec<Node>,
}

/// One step.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it uses.
    pub uses: String,
    /// What else is worth a word, such as its condition.
    pub marks: Vec<String>,
    /// Those of the same phase that it needs, by their place in it.
    pub needs: Vec<usize>,
}

impl PhaseDrawing {
    /// The steps by layer: each stands one layer below the lowest that it needs.
    fn layers(&self) -> Vec<Vec<usize>> {
        let mut depth = vec![0; self.nodes.len()];
        // Needs have no cycle: as many rounds as there are steps are enough.
        for _ in 0..self.nodes.len() {
            for (index, node) in self.nodes.iter().enumerate() {
                depth[index] = node.needs.iter().map(|need| depth[*need] + 1).max().unwrap_or(0);
            }
        }
        let mut layers = vec![Vec::new(); depth.iter().max().map_or(0, |deepest| deepest + 1)];
        for (index, depth) in depth.into_iter().enumerate() {
            layers[depth].push(index);
        }
        layers
    }
}

/// At most so many characters.
fn shorten(text: &str, most: usize) -> String {
    crate::terminal::cut(&crate::terminal::inert(text), most)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A drawing whose texts try to break out of every form.
    pub fn hostile() -> Drawing {
        let node = |name: &str, uses: &str, needs: &[usize]| Node {
            name: name.to_owned(),
            uses: uses.to_owned(),
            marks: vec!["if a < b && c == \"]]>\" \\ | {x} #35; --> \u{1b}[2J".to_owned()],
            needs: needs.to_vec(),
        };
        Drawing {
            title: "p<script>".to_owned(),
            triggers: vec!["a=~\"x|y\"".to_owned()],
            phases: vec![
                PhaseDrawing {
                    name: "detect",
                    nodes: vec![node("a", "http", &[]), node("b", "log", &[]), node("c", "wait \"`end`\"", &[0, 1])],
                },
                PhaseDrawing { name: "finally", nodes: vec![node("end", "slack", &[])] },
            ],
        }
    }

    #[test]
    fn a_step_stands_below_what_it_needs() {
        assert_eq!(hostile().phases[0].layers(), [vec![0, 1], vec![2]]);
    }
}
