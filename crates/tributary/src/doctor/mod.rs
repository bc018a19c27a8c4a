//! Looks at everything that the services depend on, and changes nothing.

mod broker;
mod certificates;
mod database;
mod finding;

use std::path::Path;

use runtime::config::Environment;

use self::finding::{Finding, Findings};
use crate::{
    cli::{Format, Service},
    failure::Failure,
    output::Output,
    service::{install_crypto, settings},
};

pub(crate) async fn run(options: Service, format: Format) -> Result<(), Failure> {
    install_crypto();
    let findings = examine(options.config.as_deref()).await;
    Output::new(format).print(|| findings.json(), || findings.text())?;
    if findings.problems() > 0 { Err(Failure::Result) } else { Ok(()) }
}

async fn examine(file: Option<&Path>) -> Findings {
    let mut findings = Findings::default();
    let environment = Environment::of_process();
    let read = settings::<scheduler::Config>("scheduler", file, &environment)
        .and_then(|(_, config)| Ok(config.validate().map(|()| config)?));
    let config = match read {
        Ok(config) => config,
        Err(error) => {
            let mend = "correct what is named, in the file or in the environment; nothing else was \
                        checked";
            findings.add(Finding::problem("settings", format!("{error:#}"), mend));
            return findings;
        }
    };
    findings.add(Finding::good("settings", "they can be used".to_owned()));
    certificates::check_api(config.access.tls.as_ref(), &mut findings);
    certificates::check(&config.bus, &mut findings).await;
    broker::check(&config.bus, &mut findings).await;
    database::check(&config, &mut findings).await;
    findings
}
