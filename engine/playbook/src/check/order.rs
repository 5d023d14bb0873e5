//! The DAG: what needs what, without cycles, inside one phase.

use std::collections::BTreeMap;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::Checker;
use crate::diagnostic::Span;
use crate::nearest::nearest;

impl Checker<'_> {
    /// For each step the names that it needs; fills in what is upstream of what.
    pub(super) fn order(&mut self) -> Vec<Vec<String>> {
        let count = self.steps.len();
        let mut needs: Vec<Vec<(usize, Span)>> = Vec::with_capacity(count);
        for index in 0..count {
            let node = self.steps[index].node.get("needs");
            let names = node.map(|node| self.texts(node, "needs")).unwrap_or_default();
            let mut found: Vec<(usize, Span)> = Vec::new();
            for (name, span) in names {
                match self.needed(index, &name, span) {
                    Some(other) if found.iter().any(|(known, _)| *known == other) => {
                        self.report.warning("duplicate-need", span, format!("{name} is already listed"));
                    }
                    Some(other) => found.push((other, span)),
                    None => {}
                }
            }
            needs.push(found);
        }
        self.cycles(&needs);
        self.upstream = upstream(&needs);
        needs.iter().map(|needs| needs.iter().map(|(other, _)| self.steps[*other].name.to_owned()).collect()).collect()
    }

    /// The index of a needed step, if it may be needed.
    fn needed(&mut self, index: usize, name: &str, span: Span) -> Option<usize> {
        let phase = self.steps[index].phase;
        let same = self.steps.iter().position(|step| step.name == name && step.phase == phase);
        if same.is_some() {
            return same;
        }
        if let Some(other) = self.steps.iter().find(|step| step.name == name) {
            let message = format!("{name} stands in {}, and needs reaches steps of its own phase alone", other.phase);
            let help = if other.phase < phase {
                format!("phases are barriers: all of {} is over before {phase} begins; leave it out", other.phase)
            } else {
                format!("phases are barriers: {} comes after {phase}; move one of the two steps", other.phase)
            };
            self.report.error("needs-other-phase", span, message).help(help);
            return None;
        }
        let near = nearest(name, self.steps.iter().filter(|step| step.phase == phase).map(|step| step.name));
        let help = near.map(|near| format!("did you mean {near}?"));
        self.report.error("unknown-step", span, format!("no step of {phase} is named {name}")).maybe_help(help);
        None
    }

    /// Reports each cycle once, as the path of its steps.
    fn cycles(&mut self, needs: &[Vec<(usize, Span)>]) {
        let mut graph: DiGraph<usize, ()> = DiGraph::with_capacity(needs.len(), needs.len());
        let nodes: Vec<NodeIndex> = (0..needs.len()).map(|index| graph.add_node(index)).collect();
        for (index, needs) in needs.iter().enumerate() {
            for (other, _) in needs {
                graph.add_edge(nodes[index], nodes[*other], ());
            }
        }
        for component in tarjan_scc(&graph) {
            let members: Vec<usize> = component.iter().map(|node| graph[*node]).collect();
            let alone = members.len() == 1 && !needs[members[0]].iter().any(|(other, _)| *other == members[0]);
            if alone {
                continue;
            }
            let start = members.iter().copied().min().unwrap_or_default();
            let path = cycle_from(start, &members, needs);
            let names: Vec<&str> =
                path.iter().chain(std::iter::once(&start)).map(|index| self.steps[*index].name).collect();
            let span = needs[start]
                .iter()
                .find(|(other, _)| path.get(1).unwrap_or(&start) == other)
                .map_or(self.steps[start].place, |(_, span)| *span);
            let message = format!("these steps need each other: {}", names.join(" -> "));
            self.report.error("cycle", span, message).help("remove one of these needs");
        }
    }
}

/// The shortest way from a step back to itself, without its last.
fn cycle_from(start: usize, members: &[usize], needs: &[Vec<(usize, Span)>]) -> Vec<usize> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        for (next, _) in &needs[at] {
            if *next == start {
                let mut path = vec![at];
                while let Some(before) = path.last().filter(|last| **last != start).and_then(|last| from.get(last)) {
                    path.push(*before);
                }
                path.reverse();
                return path;
            }
            if members.contains(next) && !from.contains_key(next) {
                from.insert(*next, at);
                queue.push_back(*next);
            }
        }
    }
    vec![start]
}

/// Whether a step is over for certain before another starts, by `needs`, for all pairs.
fn upstream(needs: &[Vec<(usize, Span)>]) -> Vec<Vec<bool>> {
    (0..needs.len())
        .map(|index| {
            let mut reached = vec![false; needs.len()];
            let mut stack: Vec<usize> = needs[index].iter().map(|(other, _)| *other).collect();
            while let Some(at) = stack.pop() {
                if !std::mem::replace(&mut reached[at], true) {
                    stack.extend(needs[at].iter().map(|(other, _)| *other));
                }
            }
            reached
        })
        .collect()
}
