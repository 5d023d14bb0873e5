//! The warden: a process of its own that ends the commands of an engine that was killed.
//!
//! The engine tells it of each process group that begins and that is over, through a pipe. The kernel closes the pipe when
//! the engine ends, in whatever way; the warden then kills what is left, and ends too. The kernel's own means
//! (`PR_SET_PDEATHSIG`) would end the command and none of its descendants, and needs code between fork and exec.
//!
//! What it does not reach: a process that left its group, a command that began in the instant in which the engine was
//! killed, and anything where the warden is killed as well. It goes by the name of `exec-warden`, so that killing by the
//! engine's name leaves it alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufRead, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Its name, for whoever looks at processes.
const NAME: &std::ffi::CStr = c"exec-warden";

/// The engine's side. Cheap to clone; `Default` has no warden, and commands outlive an engine that is killed.
#[derive(Clone, Debug, Default)]
pub struct Warden(Option<Arc<Mutex<Post>>>);

#[derive(Debug)]
struct Post {
    command: Vec<OsString>,
    process: Option<Child>,
    groups: BTreeSet<i32>,
}

impl Warden {
    /// A warden that is this command, which must come to [`keep_watch`]. Started before the first group that it is told of.
    #[must_use]
    pub fn by(command: Vec<OsString>) -> Self {
        Self(Some(Arc::new(Mutex::new(Post { command, process: None, groups: BTreeSet::new() }))))
    }

    /// To be called before a group begins: a warden takes longer to start than many a command takes to act.
    pub(crate) fn is_needed(&self) {
        self.tell(|post| post.say("\n").or_else(|_| post.start()));
    }

    pub(crate) fn begins(&self, group: Pid) {
        self.tell(|post| {
            post.groups.insert(group.as_raw());
            post.say(&format!("+{group}\n")).or_else(|_| post.start())
        });
    }

    pub(crate) fn is_over(&self, group: Pid) {
        self.tell(|post| {
            post.groups.remove(&group.as_raw());
            // A warden that is gone is started with the next group.
            post.say(&format!("-{group}\n")).or(Ok(()))
        });
    }

    fn tell(&self, what: impl FnOnce(&mut Post) -> io::Result<()>) {
        let Some(post) = &self.0 else { return };
        let mut post = post.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = what(&mut post) {
            tracing::warn!(%error, "no warden can be started: commands will outlive an engine that is killed");
        }
    }
}

impl Post {
    /// Starts it and tells it of all groups.
    fn start(&mut self) -> io::Result<()> {
        let Some((program, arguments)) = self.command.split_first() else { return Ok(()) };
        if let Some(mut gone) = self.process.take() {
            gone.kill().ok();
            gone.wait()?;
        }
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C is for the engine.
        command.args(arguments).arg0(NAME.to_string_lossy().as_ref()).env_clear().process_group(0);
        self.process = Some(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let all: String = self.groups.iter().map(|group| format!("+{group}\n")).collect();
        self.say(&all)
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        let pipe = self.process.as_mut().and_then(|process| process.stdin.as_mut());
        // Short enough to be written at once or not at all.
        pipe.ok_or(io::ErrorKind::NotConnected)?.write_all(text.as_bytes())
    }
}

/// The warden's side: hears of groups until the other end closes, and kills those that are not over.
pub fn keep_watch(told: impl BufRead) {
    // Where it keeps the program's name it is only easier to kill.
    nix::sys::prctl::set_name(NAME).ok();
    let mut groups = BTreeSet::new();
    for line in told.lines().map_while(Result::ok) {
        let (begins, group) = match line.split_at_checked(1) {
            Some(("+", group)) => (true, group),
            Some(("-", group)) => (false, group),
            _ => continue,
        };
        // 0 and 1 would be its own group and everybody's.
        let Some(group) = group.parse::<i32>().ok().filter(|group| *group > 1) else { continue };
        if begins {
            groups.insert(group);
        } else {
            groups.remove(&group);
        }
    }
    for group in groups {
        // It fails where nobody is left, which is what is wanted.
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").process_group(0).spawn().unwrap()
    }

    #[test]
    fn groups_that_are_not_over_end_with_the_pipe() {
        let (mut left, mut over) = (sleeper(), sleeper());
        let told = format!("+{0}\n+{1}\n-{1}\n+0\n+1\n+-1\nnonsense\n\n", left.id(), over.id());
        keep_watch(told.as_bytes());
        assert_eq!(left.wait().unwrap().signal(), Some(9));
        assert!(over.try_wait().unwrap().is_none(), "what was over is not touched");
        over.kill().unwrap();
        over.wait().unwrap();
    }

    #[test]
    fn a_warden_that_was_killed_is_replaced_and_told_of_everything() {
        let home = tempfile::tempdir().unwrap();
        let heard = |number: usize| home.path().join(number.to_string());
        let script = format!("cat > {}/$(ls {0} | wc -l)", home.path().display());
        let warden = Warden::by(["/bin/sh", "-c", &script].map(OsString::from).to_vec());
        warden.begins(Pid::from_raw(1001));
        warden.begins(Pid::from_raw(1002));
        warden.is_over(Pid::from_raw(1001));
        let post = warden.0.as_ref().unwrap();
        let end = |post: &mut Post| {
            let mut process = post.process.take().unwrap();
            drop(process.stdin.take());
            process.wait().unwrap();
        };
        end(&mut post.lock().unwrap());
        warden.begins(Pid::from_raw(1003));
        end(&mut post.lock().unwrap());
        assert_eq!(std::fs::read_to_string(heard(0)).unwrap(), "+1001\n+1002\n-1001\n");
        assert_eq!(std::fs::read_to_string(heard(1)).unwrap(), "+1002\n+1003\n");
    }
}
