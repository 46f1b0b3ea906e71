//! What the checks say: one line each, with what to do where something is not as it should be.

use serde::Serialize;

use super::super::{CONFIGURATION, LOGIN_NEEDED};

/// One check and what it came to. docs/doctor.md is the reference of its JSON form.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    name: &'static str,
    verdict: Verdict,
    /// What was seen; of a check that was skipped, why.
    seen: String,
    /// What to do.
    advice: Option<String>,
    #[serde(skip)]
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// It works, and may not always.
    Warning,
    Failed,
    Skipped,
}

/// What a failure is about: it decides the exit code, the last one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    #[default]
    Other,
    /// Only a login helps.
    Login,
    /// The configuration must be changed.
    Configuration,
}

/// The name of the check that failed, where others depend on it.
pub(super) type Unreached = &'static str;

impl Check {
    fn new(name: &'static str, verdict: Verdict, seen: String, advice: Option<String>) -> Self {
        Self {
            name,
            verdict,
            seen: printable(&seen),
            advice: advice.map(|advice| printable(&advice)),
            fault: Fault::default(),
        }
    }

    pub(super) fn ok(name: &'static str, seen: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, seen.into(), None)
    }

    pub(super) fn warning(
        name: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Warning, seen.into(), Some(advice.into()))
    }

    pub(super) fn failed(
        name: &'static str,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Failed, seen.into(), Some(advice.into()))
    }

    /// From an error whose text says what is wrong and, behind a semicolon, what to do; and its cause.
    pub(super) fn failed_with(name: &'static str, error: &str, cause: &str) -> Self {
        let (seen, advice) = error.split_once("; ").unwrap_or((error, ""));
        let seen = match cause {
            "" => seen.to_owned(),
            cause => format!("{seen}: {cause}"),
        };
        let advice = Some(advice.to_owned()).filter(|advice| !advice.is_empty());
        Self::new(name, Verdict::Failed, seen, advice)
    }

    /// Not made, for this reason.
    pub(super) fn skipped(name: &'static str, because: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, because.into(), None)
    }

    /// Not made, for this reason; what would make it possible.
    pub(super) fn skipped_until(
        name: &'static str,
        because: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self::new(name, Verdict::Skipped, because.into(), Some(advice.into()))
    }

    /// Not made, since another failed.
    pub(super) fn depends(name: &'static str, on: Unreached) -> Self {
        Self::skipped(name, depends(on))
    }

    pub(super) fn of(self, fault: Fault) -> Self {
        Self { fault, ..self }
    }
}

/// Why a check is not made, where another failed.
pub(super) fn depends(on: Unreached) -> String {
    format!("not tried, since {} failed", in_words(on))
}

/// All checks, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Check>);

#[derive(Serialize)]
struct Json<'a> {
    exit_code: u8,
    checks: &'a [Check],
}

impl Report {
    pub(super) fn push(&mut self, check: Check) {
        self.0.push(check);
    }

    /// Pushes a check that others depend on, and says whether they can be made.
    pub(super) fn push_gate(&mut self, check: Check) -> Result<(), Unreached> {
        let (name, failed) = (check.name, check.verdict == Verdict::Failed);
        self.push(check);
        if failed { Err(name) } else { Ok(()) }
    }

    fn failures(&self) -> impl Iterator<Item = &Check> {
        let failed = |check: &&Check| check.verdict == Verdict::Failed;
        self.0.iter().filter(failed)
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self.failures().map(|check| check.fault).max() {
            None => 0,
            Some(Fault::Other) => 1,
            Some(Fault::Login) => LOGIN_NEEDED,
            Some(Fault::Configuration) => CONFIGURATION,
        }
    }

    pub(super) fn summary(&self) -> String {
        let names: Vec<_> = self.failures().map(|check| in_words(check.name)).collect();
        format!("not as it should be: {}", names.join(", "))
    }

    pub(super) fn json(&self) -> String {
        let json = Json {
            exit_code: self.exit_code(),
            checks: &self.0,
        };
        serde_json::to_string_pretty(&json).expect("text and numbers always serialise")
    }

    pub(super) fn words(&self) -> String {
        self.0.iter().flat_map(lines).collect::<Vec<_>>().join("\n")
    }
}

fn lines(check: &Check) -> Vec<String> {
    /// As wide as the longest verdict and a gap.
    const INDENT: &str = "         ";
    let verdict = match check.verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    };
    let seen = check.seen.replace('\n', &format!("\n{INDENT}"));
    let mut lines = vec![format!("{verdict:<9}{:<20}{seen}", in_words(check.name))];
    lines.extend(
        check
            .advice
            .iter()
            .map(|advice| format!("{INDENT}→ {advice}")),
    );
    lines
}

fn in_words(name: &str) -> String {
    name.replace('_', " ").replace("tls", "TLS")
}

/// What others wrote must not command a terminal.
fn printable(text: &str) -> String {
    let plain = |c: char| match c {
        '\n' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: impl IntoIterator<Item = Check>) -> Report {
        Report(checks.into_iter().collect())
    }

    #[test]
    fn the_worst_failure_decides_the_exit_code_and_warnings_do_not() {
        let failed = |fault| Check::failed("a", "seen", "advice").of(fault);
        let code = |checks: Vec<Check>| report(checks).exit_code();
        assert_eq!(code(vec![]), 0);
        assert_eq!(
            code(vec![
                Check::ok("a", "x"),
                Check::warning("b", "x", "y"),
                Check::skipped("c", "x")
            ]),
            0
        );
        assert_eq!(code(vec![failed(Fault::Other), Check::ok("a", "x")]), 1);
        assert_eq!(code(vec![failed(Fault::Login), failed(Fault::Other)]), 77);
        assert_eq!(
            code(vec![failed(Fault::Configuration), failed(Fault::Login)]),
            78
        );
    }

    #[test]
    fn what_others_wrote_does_not_command_the_terminal() {
        let shown = report([Check::ok("a", "issued by \u{1b}[2J\r evil")]).words();
        assert_eq!(
            shown,
            "ok       a                   issued by \u{fffd}[2J\u{fffd} evil"
        );
    }

    #[test]
    fn an_errors_advice_stands_on_a_line_of_its_own() {
        let check = Check::failed_with("store_file", "it is exposed; run: chmod 600 x", "why");
        assert_eq!(
            report([check]).words(),
            "FAILED   store file          it is exposed: why\n         → run: chmod 600 x"
        );
    }
}
