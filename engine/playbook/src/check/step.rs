//! One step: its action, its parameters, and what surrounds them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Checker;
use super::attempts::{Defaults, TIMEOUT};
use super::call::{Polling, key_of};
use super::catalogue;
use super::identifier;
use super::names::{Part, Place};
use crate::actions::{self, APPROVAL, PLAYBOOK, Signature, WAIT};
use crate::catalogue::NamedAction;
use crate::diagnostic::Span;
use crate::document::{Key, Kind, Node};
use crate::keys;
use crate::model::{CallModel, ForeachModel, StepModel};
use crate::nearest::nearest;
use crate::plan::{OnTimeout, OnUnknown};
use crate::time::millis;

const POLLING: Polling = Polling { every: Duration::from_secs(10), within: Duration::from_secs(600) };
const MAX_PARALLEL: u32 = 16;
const ATTEMPTS: u32 = 3;

impl<'a> Checker<'a> {
    pub(super) fn step(&mut self, index: usize, needs: Vec<String>, defaults: &Defaults) -> Option<StepModel> {
        let (phase, name, place, node) = {
            let known = &self.steps[index];
            (known.phase, known.name, known.place, known.node)
        };
        let at = |part| Place::Step { at: index, part };
        let entries = self.entries(node, &format!("step {name}"))?;
        self.known_keys(entries, keys::STEP, "a step");
        let condition = node.get("if").and_then(|node| self.condition(node, at(Part::Once)));
        let foreach = self.foreach(node, index);
        let secrets = node.get("secrets").map(|node| self.secret_names(node));
        let secrets = secrets.as_deref();
        let signature = self.uses(node.get("uses"), &format!("step {name}"), place, true);
        let kept = signature.is_some_and(|signature| actions::is_kept_by_core(signature.name));
        let part = if kept { Part::Once } else { Part::Each };
        let signature = signature?;
        let mut call = self.call(node, signature, at(part), secrets, place);
        if kept {
            self.only_what_means_something(signature, entries, &call.with);
        }
        if let Some(artifacts) = node.get("artifacts").filter(|_| !kept) {
            self.artifacts(artifacts, signature, &mut call.with);
        }
        let named = catalogue::named_in(self.catalogue, node).map(|(_, action)| action);
        let mut of_action = named.map(NamedAction::conditions_on_inputs).unwrap_or_default();
        let mut outputs = named.map(|action| action.outputs.clone()).unwrap_or_default();
        for (output, text) in self.outputs(node.get("outputs"), at(Part::Outputs)) {
            of_action.outputs.remove(&output);
            outputs.insert(output, text);
        }
        let own_retry = node.get("retry").map(|node| self.retry(node, at(Part::Retry))).unwrap_or_default();
        let own_unknown = node.get("on_unknown").and_then(|node| self.on_unknown(node, keys::STEP_ON_UNKNOWN));
        let own_idempotent = node.get("idempotent").and_then(|node| self.bool(node));
        let read_only = self.read_only(node, named).filter(|_| !kept);
        let timeout = node.get("timeout").and_then(|node| self.duration(node));
        let timeout = timeout.or(named.and_then(|action| action.timeout));
        let on_timeout = node.get("on_timeout").and_then(|node| self.on_timeout(node, signature));
        let until = self.until(node, at(Part::Until), &POLLING);
        let verify = node.get("verify").and_then(|node| self.verify(node, at, secrets, defaults));
        let undo = node.get("undo").and_then(|node| self.undo(node, at, secrets, defaults));
        of_action.retry_if &= own_retry.condition.is_none();
        of_action.verify &= node.get("verify").is_none();
        let with_inputs = |part: &mut CallModel| part.alias.clone_from(&call.alias);
        let verify = verify.or_else(|| {
            let mut verify = named.and_then(|action| action.verify.clone()).filter(|_| node.get("verify").is_none())?;
            with_inputs(&mut verify.call);
            Some(verify)
        });
        let undo = undo.or_else(|| {
            let mut undo = named.and_then(|action| action.undo.clone()).filter(|_| node.get("undo").is_none())?;
            with_inputs(&mut undo.call);
            Some(undo)
        });
        let ends = self.ends(node, index, named.map(|action| action.ends.as_slice()).unwrap_or_default());
        let runs_on = node.get("runs_on").and_then(|node| self.name(node, "pool"));
        let budget = node.get("budget").and_then(|node| self.name(node, "budget"));
        let continue_on_error = node.get("continue_on_error").and_then(|node| self.bool(node)).unwrap_or(false);

        let said = own_idempotent.or(named.and_then(|action| action.idempotent)).or(defaults.idempotent);
        let said = if read_only == Some(true) { Some(true) } else { said };
        let idempotent = said.filter(|_| !kept).unwrap_or_else(|| signature.idempotent(&call.with));
        let said = own_unknown.or(named.and_then(|action| action.on_unknown));
        let on_unknown = said.or(defaults.on_unknown.filter(|_| !kept)).unwrap_or(match idempotent {
            true => OnUnknown::Retry,
            false => OnUnknown::Ask,
        });
        self.consistent(node, signature.name, idempotent, own_unknown, verify.is_some());
        let retry = named.map_or_else(|| own_retry.clone(), |action| own_retry.over(&action.retry));
        let retry = if kept { retry } else { retry.over(&defaults.retry) };
        let timeout = if kept { timeout } else { timeout.or(defaults.timeout).or(Some(TIMEOUT)) };
        if signature.name == APPROVAL && timeout.is_none() {
            self.report
                .warning("no-timeout", place, format!("{name} waits for a decision as long as it takes"))
                .help("add timeout: 15m, and on_timeout: deny or approve");
        }
        Some(StepModel {
            phase,
            name: name.to_owned(),
            needs,
            condition,
            uses: call.uses,
            with: call.with,
            env: call.env,
            secrets: secrets.map(<[String]>::to_vec),
            idempotent,
            retry: retry.resolve(if idempotent { ATTEMPTS } else { 1 }),
            retry_if: retry.condition,
            on_unknown,
            timeout_ms: timeout.map(millis),
            outputs,
            continue_on_error,
            alias: call.alias,
            of_action,
            read_only,
            foreach,
            until,
            verify,
            undo,
            ends,
            on_timeout,
            runs_on: if kept { None } else { runs_on.or_else(|| defaults.runs_on.clone()) },
            budget,
        })
    }

    /// What only the parts of a step together show.
    pub(super) fn consistent(
        &mut self,
        node: &Node,
        action: &str,
        idempotent: bool,
        on_unknown: Option<OnUnknown>,
        verified: bool,
    ) {
        if on_unknown == Some(OnUnknown::Retry) && !idempotent {
            self.may_happen_twice(node, action);
        }
        if let Some(place) = node.get("on_unknown").filter(|_| on_unknown == Some(OnUnknown::Verify))
            && !verified
            && node.get("verify").is_none()
        {
            self.report
                .error("missing-key", place.span, "on_unknown: verify needs a verify, which the step does not have")
                .help("add verify: {uses: http, with: {url: ...}, until: \"...\"}, or use ask");
        }
        if let Some(until) = node.get("until").filter(|_| !idempotent) {
            self.report
                .warning("may-happen-twice", until.span, format!("{action} is not idempotent, and until repeats it"))
                .help("poll with verify, or say idempotent: true where repeating it is harmless");
        }
    }

    fn foreach(&mut self, node: &'a Node, index: usize) -> Option<ForeachModel> {
        let most = node.get("max_parallel").and_then(|node| self.whole(node, 1, keys::MOST_PARALLEL));
        let fail_fast = node.get("fail_fast").and_then(|node| self.bool(node)).unwrap_or(false);
        let Some(items) = node.get("foreach") else {
            for key in ["max_parallel", "fail_fast"] {
                let Some(place) = key_of(node, key) else { continue };
                self.report
                    .error("missing-key", place, format!("{key} means nothing without foreach"))
                    .help("add foreach: inputs.hosts, or remove it");
            }
            return None;
        };
        let items = self.list_of(items, Place::Step { at: index, part: Part::Once })?;
        Some(ForeachModel { items, max_parallel: most.unwrap_or(MAX_PARALLEL), fail_fast })
    }

    /// Refuses the keys that mean nothing for an action that no worker executes.
    fn only_what_means_something(&mut self, signature: &Signature, entries: &[(Key, Node)], with: &Map<String, Value>) {
        let event = matches!(with.get("for"), Some(Value::Object(_)));
        let (what, allowed): (&str, &[&str]) = match signature.name {
            WAIT if event => ("a wait", &["timeout", "continue_on_error", "outputs"]),
            WAIT => ("a wait", &["timeout", "continue_on_error"]),
            APPROVAL => ("an approval", &["timeout", "on_timeout"]),
            PLAYBOOK => ("a sub-playbook", &["timeout", "continue_on_error", "outputs"]),
            _ => ("an undo", &["continue_on_error"]),
        };
        for (key, _) in entries {
            let name = key.text.as_str();
            let known = keys::STEP.iter().any(|known| known.name == name);
            if !known || allowed.contains(&name) || ["needs", "if", "uses", "with", "on_timeout"].contains(&name) {
                continue;
            }
            let (why, help) = match name {
                "continue_on_error" => ("what needs it must not go on where it is denied", "remove it"),
                "foreach" | "max_parallel" | "fail_fast" if signature.name == PLAYBOOK => {
                    ("it is run once", "give the list to the other playbook as an input, and use foreach there")
                }
                "foreach" | "max_parallel" | "fail_fast" => {
                    ("it is done once", "use foreach in the steps that do something")
                }
                "outputs" => ("it has no result", "remove it"),
                "timeout" => ("the attempts of the undo have a timeout of their own", "set timeout in the undo itself"),
                "retry" | "on_unknown" | "idempotent" | "read_only" => ("it has no attempts", "remove it"),
                _ => ("no worker executes it", "remove it"),
            };
            self.report.error("not-applicable", key.span, format!("{name} means nothing for {what}: {why}")).help(help);
        }
    }

    fn on_timeout(&mut self, node: &'a Node, signature: &Signature) -> Option<OnTimeout> {
        let word = self.word(node, &["deny", "approve"])?;
        if signature.name != APPROVAL {
            self.report
                .error("not-applicable", node.span, format!("on_timeout is for approval; {} has none", signature.name))
                .help("a step whose time is over fails; continue_on_error tolerates that");
            return None;
        }
        Some(if word == "approve" { OnTimeout::Approve } else { OnTimeout::Deny })
    }

    /// Becomes `with.artifacts`, which the worker reads.
    pub(super) fn artifacts(&mut self, node: &'a Node, signature: &Signature, with: &mut Map<String, Value>) {
        if signature.name != "exec" {
            self.report
                .error(
                    "not-applicable",
                    node.span,
                    format!("artifacts is for exec; {} leaves no files", signature.name),
                )
                .help("remove it");
            return;
        }
        let paths = self.texts(node, "artifacts");
        if paths.len() > keys::MOST_ARTIFACTS {
            let message = format!("{} artifacts; the limit is {}", paths.len(), keys::MOST_ARTIFACTS);
            self.report.error("too-many-artifacts", paths[keys::MOST_ARTIFACTS].1, message).help("pack them into one");
        }
        for (path, span) in &paths {
            if let Some(problem) = path_problem(path) {
                self.report
                    .error("bad-path", *span, format!("{path:?} {problem}"))
                    .help("write a path relative to $STANCH_ARTIFACTS or to the command's directory, such as out/snapshot.tar.gz");
            }
        }
        with.insert("artifacts".to_owned(), paths.into_iter().map(|(path, _)| path).collect());
    }

    fn secret_names(&mut self, node: &'a Node) -> Vec<String> {
        let names = self.texts(node, "secrets");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        for (name, span) in &names {
            if name.is_empty() || !name.bytes().all(fits) {
                self.report
                    .error("bad-name", *span, format!("{name:?} is no secret's name"))
                    .help("write the name alone, such as edr");
            }
        }
        names.into_iter().map(|(name, _)| name).collect()
    }

    pub(super) fn outputs(&mut self, node: Option<&'a Node>, place: Place) -> BTreeMap<String, String> {
        let entries = node.and_then(|node| self.entries(node, "outputs")).unwrap_or_default();
        let mut outputs = BTreeMap::new();
        for (key, node) in entries {
            if !identifier(&key.text) {
                self.report
                    .error("bad-name", key.span, format!("{:?} is no output's name", key.text))
                    .help("use letters, digits and _, not beginning with a digit");
            }
            if let Some(text) = self.cel(node, place) {
                outputs.insert(key.text.clone(), text);
            }
        }
        outputs
    }

    /// The step that `uses: undo` takes back: one that is over, and that says how.
    pub(super) fn undone(&mut self, node: &'a Node, index: usize) -> Option<String> {
        let name = self.string(node)?;
        self.contained(name, node.span, index)
    }

    /// The steps whose effects are final once this one has succeeded: those that it names, and those before it that use an
    /// action which its own action's `ends` in the catalogue names.
    fn ends(&mut self, node: &'a Node, index: usize, actions: &[String]) -> Vec<String> {
        let named = node.get("ends").map(|node| self.texts(node, "ends")).unwrap_or_default();
        let mut ends: Vec<String> =
            named.into_iter().filter_map(|(name, span)| self.contained(name, span, index)).collect();
        for other in 0..self.steps.len() {
            let uses = match self.steps[other].node.get("uses").map(|node| &node.kind) {
                Some(Kind::Text(uses)) => uses.as_str(),
                _ => continue,
            };
            let of_action = actions.iter().any(|action| action == uses) && self.not_over(index, other).is_none();
            let name = self.steps[other].name;
            if of_action && self.steps[other].undo && !ends.iter().any(|known| known == name) {
                ends.push(name.to_owned());
            }
        }
        ends
    }

    /// The name of a step that is over and says how it is taken back; an error otherwise.
    fn contained(&mut self, name: String, span: Span, index: usize) -> Option<String> {
        let problem = match self.steps.iter().position(|step| step.name == name) {
            None => {
                let near = nearest(&name, self.steps.iter().map(|step| step.name));
                let help = near.map(|near| format!("did you mean {near}?"));
                Some(("unknown-step", format!("no step is named {name}"), help))
            }
            Some(other) => self.not_over(index, other).or_else(|| {
                (!self.steps[other].undo).then(|| {
                    let help = format!("add undo: {{uses: ...}} to {name}");
                    ("no-undo", format!("{name} does not say how it is taken back"), Some(help))
                })
            }),
        };
        match problem {
            Some((code, message, help)) => {
                self.report.error(code, span, message).maybe_help(help);
                None
            }
            None => Some(name),
        }
    }
}

/// Why a text is no path of an artifact.
fn path_problem(path: &str) -> Option<&'static str> {
    match () {
        () if path.is_empty() => Some("is no path"),
        () if path.len() > 1024 => Some("is longer than 1024 bytes"),
        () if path.contains("{{") => Some("cannot hold a template"),
        () if path.chars().any(char::is_control) => Some("holds a control character"),
        () if path.starts_with('/') => Some("is absolute"),
        () if path.split('/').any(|part| part == "..") => Some("leads out of the directory"),
        () => None,
    }
}
