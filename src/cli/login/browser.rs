//! Opening a browser, where there is one.

use std::fmt;
use std::io;
use std::process::Stdio;

use tokio::process::Command;

use crate::config::Environment;

/// A program that shows an address to the person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Opener {
    program: String,
    /// `%s` in one of them is the address; else it comes last.
    arguments: Vec<String>,
}

/// The program that opens a browser here: what `$BROWSER` says, else the system's own. `None` where nobody would see it.
pub(super) fn find(environment: &dyn Environment) -> Option<Opener> {
    if let Some(browser) = environment.var("BROWSER") {
        return chosen(&browser);
    }
    let has = |name: &str| environment.var(name).is_some();
    let system = if cfg!(target_os = "macos") {
        // Over SSH it would open where nobody sits.
        (!has("SSH_CONNECTION")).then_some("open")
    } else if has("WSL_DISTRO_NAME") {
        Some("wslview")
    } else {
        (has("DISPLAY") || has("WAYLAND_DISPLAY")).then_some("xdg-open")
    };
    system.map(|program| Opener {
        program: program.to_owned(),
        arguments: Vec::new(),
    })
}

/// The first of a list between colons, which is how `$BROWSER` is written.
fn chosen(browser: &str) -> Option<Opener> {
    let mut words = browser.split(':').next()?.split_whitespace();
    Some(Opener {
        program: words.next()?.to_owned(),
        arguments: words.map(str::to_owned).collect(),
    })
}

impl fmt::Display for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.program)
    }
}

impl Opener {
    /// Starts it and waits for nothing: some browsers end with their last window only. It gets none of the variables
    /// `without`.
    ///
    /// Other users of this machine can see the address among the arguments of the process. They learn the state of the
    /// login, but a code of theirs does not fit its proof key.
    ///
    /// # Errors
    ///
    /// When there is no such program.
    pub(super) fn open(&self, url: &str, without: &[String]) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(self.arguments_for(url));
        for variable in without {
            command.env_remove(variable);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is meant for the login.
            .process_group(0)
            .spawn()
            .map(drop)
    }

    fn arguments_for(&self, url: &str) -> Vec<String> {
        let has_place = self
            .arguments
            .iter()
            .any(|argument| argument.contains("%s"));
        let given = self.arguments.iter();
        let mut arguments: Vec<_> = given.map(|argument| argument.replace("%s", url)).collect();
        if !has_place {
            arguments.push(url.to_owned());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn found(variables: &[(&str, &str)]) -> Option<Vec<String>> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: BTreeMap<_, _> = variables.iter().map(owned).collect();
        let opener = find(&environment)?;
        let arguments = opener.arguments_for("http://a/?b");
        Some([vec![opener.program], arguments].concat())
    }

    #[test]
    fn the_variable_browser_comes_first() {
        let words = |text: &str| Some(text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(
            found(&[("BROWSER", "firefox -P x:chromium"), ("DISPLAY", ":0")]),
            words("firefox -P x http://a/?b")
        );
        assert_eq!(
            found(&[("BROWSER", "show --url=%s --quiet")]),
            words("show --url=http://a/?b --quiet")
        );
        assert_eq!(found(&[("BROWSER", " ")]), None);
    }

    #[cfg(not(target_os = "macos"))]
    #[test]
    fn without_a_display_nothing_is_opened() {
        let program = |variables| found(variables).map(|words| words[0].clone());
        assert_eq!(program(&[]), None);
        assert_eq!(program(&[("DISPLAY", ":0")]).as_deref(), Some("xdg-open"));
        assert_eq!(
            program(&[("WAYLAND_DISPLAY", "wayland-0")]).as_deref(),
            Some("xdg-open")
        );
        assert_eq!(
            program(&[("WSL_DISTRO_NAME", "Debian")]).as_deref(),
            Some("wslview")
        );
    }
}
