//! Whose rights a hook has.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist, setgid, setgroups, setuid};
use tokio::process::Command;

/// A user of this machine other than the agent's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookUser {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl HookUser {
    /// Looks a user up; none if that is who the agent runs as anyway.
    ///
    /// # Errors
    /// In words: there is no such user, or only root could become it.
    pub(super) fn find(name: &str) -> Result<Option<Self>, String> {
        let user = match User::from_name(name) {
            Ok(Some(user)) => user,
            Ok(None) => return Err(format!("hook_user: this machine has no user {name:?}")),
            Err(error) => return Err(format!("hook_user: {name:?} cannot be looked up: {error}")),
        };
        let me = geteuid();
        if user.uid == me {
            return Ok(None);
        }
        if !me.is_root() {
            return Err(format!(
                "hook_user = {name:?}: only root may run a command as another user, and the agent runs as user {me}; run it as root, or leave hook_user out"
            ));
        }
        let c_name = CString::new(name).map_err(|_| format!("hook_user: {name:?} is no user's name"))?;
        let groups = getgrouplist(&c_name, user.gid)
            .map_err(|error| format!("hook_user: the groups of {name:?} cannot be looked up: {error}"))?;
        Ok(Some(Self { name: name.to_owned(), uid: user.uid, gid: user.gid, groups }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Has a command run with this user's rights, and with no other.
    #[allow(unsafe_code, reason = "the standard library cannot set supplementary groups yet")]
    pub(super) fn apply(&self, command: &mut Command) {
        let Self { uid, gid, groups, .. } = self.clone();
        let become_it = move || {
            setgroups(&groups)?;
            setgid(gid)?;
            setuid(uid)?;
            Ok(())
        };
        // SAFETY: what runs between fork and exec takes no lock and no memory: three system calls on
        // values that were made before.
        unsafe { command.pre_exec(become_it) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_looked_up_before_the_agent_starts() {
        let error = HookUser::find("no-such-user-here").expect_err("nobody");
        assert!(error.contains("no user"), "{error}");
        let root = HookUser::find("root");
        if geteuid().is_root() {
            assert_eq!(root, Ok(None), "nothing to change");
            let nobody = HookUser::find("nobody").expect("a user of every machine").expect("another");
            assert!(nobody.name() == "nobody" && !nobody.groups.is_empty());
        } else {
            assert!(root.expect_err("not allowed").contains("only root"));
        }
    }
}
