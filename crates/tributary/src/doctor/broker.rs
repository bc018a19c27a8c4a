use std::time::{Duration, SystemTime};

use bus::{Bus, ConnectError, StreamReport};

use super::{
    database::told,
    finding::{Finding, Findings},
};

const BROKER: &str = "broker";
const STREAMS: &str = "streams";
const CLOCK: &str = "clock";

/// How long a server may take to let us in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Difference of clocks from which on due times and ages are noticeably wrong.
pub(super) const SKEW: Duration = Duration::from_secs(2);

/// Share of a stream's room, in percent, from which on a halt of its readers soon halts its writers.
const NEARLY_FULL: u64 = 90;

/// Looks at every server, since each may be of another version, then at the streams.
pub(super) async fn check(config: &bus::Config, findings: &mut Findings) {
    let mut reached = None;
    for server in &config.servers {
        let alone = bus::Config {
            servers: vec![server.clone()],
            ..config.of_service(bus::Service::Scheduler)
        };
        let connecting = tokio::time::timeout(PATIENCE, Bus::try_connect(&alone));
        match connecting.await {
            Ok(Ok(bus)) => {
                findings.add(Finding::good(BROKER, format!("{} lets us in", address(server))));
                reached = Some(bus);
            }
            Ok(Err(error)) => findings.add(refused(server, &error)),
            Err(_) => {
                let what = format!("{} has not answered in 10 seconds", address(server));
                let mend = "see that the server runs, and that no firewall or network policy is \
                            between";
                findings.add(Finding::problem(BROKER, what, mend));
            }
        }
    }
    let Some(bus) = reached else { return };
    match bus.inspect().await {
        Ok(reports) => streams(&reports, config.replicas, findings),
        Err(error) => {
            let what = format!("JetStream does not tell of the streams: {}", told(&error));
            let mend = "enable JetStream on the servers and for the account, see that its disk is \
                        not full, and let the user ask on $JS.API.>";
            findings.add(Finding::problem(STREAMS, what, mend));
        }
    }
    clock(&bus, findings).await;
    bus.close().await;
}

fn refused(server: &str, error: &ConnectError) -> Finding {
    let mend = match error {
        ConnectError::TooOld { required, .. } => {
            format!("upgrade every server of the cluster to {required} or newer")
        }
        ConnectError::Config(_) => "correct the section `bus` of the settings".to_owned(),
        _ => "see that the server runs, that `bus.servers` names it, and that credentials and \
              certificates are its own"
            .to_owned(),
    };
    Finding::problem(BROKER, format!("{}: {}", address(server), told(error)), mend)
}

/// An address without what may be a secret.
fn address(server: &str) -> String {
    let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{host}")
}

fn streams(reports: &[StreamReport], replicas: usize, findings: &mut Findings) {
    let before = findings.problems();
    for report in reports {
        let name = &report.name;
        if !report.exists {
            let mend = "run `tributary prepare`; a service that starts creates it as well";
            findings.add(Finding::problem(STREAMS, format!("{name} is missing"), mend));
        }
        for difference in &report.differences {
            let (setting, found, wanted) =
                (difference.setting, &difference.found, &difference.wanted);
            let what = format!("{name}: `{setting}` is {found}, and has to be {wanted}");
            let mend = if difference.changeable {
                format!(
                    "run `tributary prepare`, which sets it. If it stays so, the server does not \
                     know `{setting}`: upgrade it"
                )
            } else {
                format!(
                    "it cannot be changed: once nothing is under way, stop the services, remove \
                     the stream with `nats stream rm {name}`, and run `tributary prepare`"
                )
            };
            findings.add(Finding::problem(STREAMS, what, mend));
        }
        for server in &report.lagging {
            let what = format!("the copy of {name} on {server} is away or behind");
            let mend = "see why that server is not up to date; until then fewer copies are safe";
            findings.add(Finding::warning(STREAMS, what, mend));
        }
        let percent = report.bytes.saturating_mul(100).checked_div(report.max_bytes).unwrap_or(0);
        if percent >= NEARLY_FULL {
            let what = format!("{name} is full to {percent} %; its writers will wait");
            let mend = "see what its readers are doing: `tributary runs`, and their log; or give it \
                        more room in `bus.max_bytes`";
            findings.add(Finding::warning(STREAMS, what, mend));
        }
    }
    if replicas < 3 {
        let what = format!("`bus.replicas` is {replicas}: what a server loses is lost");
        let mend = "in production run three servers, set it to 3, and run `tributary prepare`";
        findings.add(Finding::warning(STREAMS, what, mend));
    }
    if findings.problems() == before {
        let what = format!("{} streams and buckets are as they have to be", reports.len());
        findings.add(Finding::good(STREAMS, what));
    }
}

async fn clock(bus: &Bus, findings: &mut Findings) {
    // Without streams, which are reported already, nobody tells the time.
    let Ok(skew) = bus.clock_skew(SystemTime::now).await else { return };
    findings.add(clocks("the broker's", skew.at_least, skew.ahead));
}

/// What is to be said of a clock that differs from ours by at least so much.
pub(super) fn clocks(whose: &str, at_least: Duration, ahead: bool) -> Finding {
    if at_least < SKEW {
        return Finding::good(CLOCK, format!("{whose} agrees with ours"));
    }
    let (seconds, way) = (at_least.as_secs_f64(), if ahead { "ahead of" } else { "behind" });
    let what =
        format!("{whose} is {seconds:.1} s {way} ours; due times and ages are wrong by that");
    Finding::problem(CLOCK, what, "let all machines take their time from the same NTP servers")
}
