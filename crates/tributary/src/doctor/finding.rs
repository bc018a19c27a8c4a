use serde_json::{Value, json};

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    subject: &'static str,
    level: Level,
    what: String,
    /// How to mend it; empty if nothing is wrong.
    mend: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Good,
    Warning,
    Problem,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Finding {
    pub(super) fn good(subject: &'static str, what: impl Into<String>) -> Self {
        Self { subject, level: Level::Good, what: what.into(), mend: String::new() }
    }

    /// It works, and may not for long, or not always.
    pub(super) fn warning(
        subject: &'static str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { subject, level: Level::Warning, what: what.into(), mend: mend.into() }
    }

    /// It does not work, or loses data.
    pub(super) fn problem(
        subject: &'static str,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { subject, level: Level::Problem, what: what.into(), mend: mend.into() }
    }
}

/// Everything that was found, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        self.0.push(finding);
    }

    pub(super) fn problems(&self) -> usize {
        self.count(Level::Problem)
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }

    pub(super) fn json(&self) -> Value {
        let findings = self.0.iter().map(|finding| {
            json!({
                "subject": finding.subject,
                "level": finding.level.as_str(),
                "what": finding.what,
                "mend": (!finding.mend.is_empty()).then_some(&finding.mend),
            })
        });
        json!({
            "findings": findings.collect::<Value>(),
            "problems": self.problems(),
            "warnings": self.count(Level::Warning),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for Finding { subject, level, what, mend } in &self.0 {
            text += &format!("{:8} {subject:13} {what}\n", level.as_str());
            if !mend.is_empty() {
                text += &format!("{:22} to mend it: {mend}\n", "");
            }
        }
        let (problems, warnings) = (self.problems(), self.count(Level::Warning));
        text + &format!("{problems} problems, {warnings} warnings\n")
    }
}
