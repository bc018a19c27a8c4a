use std::{error::Error, time::SystemTime};

use super::{
    broker::clocks,
    finding::{Finding, Findings},
};

const DATABASE: &str = "database";

pub(super) async fn check(config: &scheduler::Config, findings: &mut Findings) {
    let before = SystemTime::now();
    let found = match scheduler::inspect_database(config).await {
        Ok(found) => found,
        Err(error) => {
            let mend = "see that the database runs, that `database` names it with user and \
                        password, and that no firewall or network policy is between";
            findings.add(Finding::problem(DATABASE, format!("{error:#}"), mend));
            return;
        }
    };
    let after = SystemTime::now();
    let problems = findings.problems();
    for denied in &found.denied {
        let what = format!("the user may not do this: {denied}");
        let mend = "grant it, or make the user the owner of the tables";
        findings.add(Finding::problem(DATABASE, what, mend));
    }
    if found.read_only {
        let mend = "name the primary server, and let the user write";
        findings.add(Finding::problem(DATABASE, "it refuses all writes", mend));
    }
    for version in &found.unfinished {
        let what = format!("migration {version} was begun and not finished");
        let mend = "restore the tables from before it, or finish it by hand, then run `tributary \
                    prepare`";
        findings.add(Finding::problem(DATABASE, what, mend));
    }
    if !found.pending.is_empty() {
        let what = format!("{} migrations are not applied yet", found.pending.len());
        let mend = "run `tributary prepare`; a scheduler that starts applies them as well";
        findings.add(Finding::problem(DATABASE, what, mend));
    }
    if !found.unknown.is_empty() {
        let what = format!("a later version has applied {} migrations", found.unknown.len());
        let mend = "finish the upgrade: replace the services of this version";
        findings.add(Finding::warning(DATABASE, what, mend));
    }
    for setting in &found.unsafe_settings {
        let what = format!("with `{setting}` a power cut loses what was acknowledged");
        let mend = "turn it on for the database of the control plane";
        findings.add(Finding::warning(DATABASE, what, mend));
    }
    if !found.protection.holds() {
        let what = "what goes to it could be read on the way";
        let mend = "add `sslmode=verify-full` to `database`, and `sslrootcert=/path` if its \
                    certificate is not of a public authority";
        findings.add(Finding::warning(DATABASE, what, mend));
    }
    if findings.problems() == problems {
        let what = format!("{} is reached, migrated and may be written", found.version);
        findings.add(Finding::good(DATABASE, what));
    }
    if let Some(now) = found.now.map(SystemTime::from) {
        let ahead = now.duration_since(after).unwrap_or_default();
        let behind = before.duration_since(now).unwrap_or_default();
        findings.add(clocks("the database's", ahead.max(behind), !ahead.is_zero()));
    }
}

/// An error with its causes in one sentence.
pub(super) fn told(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}
