//! All commands and options.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Keeps customer data consistent: reads it from every system, adapts it to one shape and keeps any
/// number of targets in step.
#[derive(Debug, Parser)]
#[command(name = "tributary", version, propagate_version = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  success
  1  failure: a run failed or was cancelled, a pipeline has problems, a check found something
  2  bad usage
  3  the server cannot be reached

Results go to stdout, logs and progress to stderr.";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Address of the control plane. Default: that of the `tributary up` of the data folder; without
    /// such a folder, http://127.0.0.1:7000.
    #[arg(long, global = true, env = "TRIBUTARY_SERVER", value_name = "ADDRESS")]
    pub(crate) server: Option<String>,
    /// Data folder of `tributary up`.
    #[arg(
        long,
        global = true,
        env = "TRIBUTARY_DATA",
        value_name = "DIR",
        default_value = ".tributary"
    )]
    pub(crate) data: PathBuf,
    /// Certificate authority of the server, in PEM, instead of those of this system. The address
    /// begins with https then.
    #[arg(long, global = true, env = "TRIBUTARY_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate in PEM, where the server asks for one.
    #[arg(
        long,
        global = true,
        env = "TRIBUTARY_CERTIFICATE",
        value_name = "FILE",
        requires = "key"
    )]
    pub(crate) certificate: Option<PathBuf>,
    /// Private key of the client certificate in PEM.
    #[arg(long, global = true, env = "TRIBUTARY_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// File with the token to send. Default: the token in TRIBUTARY_TOKEN, or none.
    #[arg(long, global = true, env = "TRIBUTARY_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Form of the results. JSON is one document with a stable shape; while watching, one per line.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Form of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    #[default]
    Text,
    /// JSON.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything here: all services in one process, a NATS server, SQLite files in one folder.
    ///
    /// Serves until Ctrl-C, which finishes what is in hand and leaves nothing running. Relative
    /// paths in pipelines are relative to the folder that this command is started in.
    Up(Up),
    /// Run the scheduler: pipelines, runs, the ledger, the gRPC API.
    Scheduler(Service),
    /// Run an extractor: reads sources.
    Extractor(Service),
    /// Run a transformer: maps, types and checks records.
    Transformer(Service),
    /// Run a loader: writes to targets.
    Loader(Service),
    /// Create or migrate the tables of the control plane and the streams of the broker, and end.
    ///
    /// Takes the settings of the scheduler. Repeating it changes nothing, and services may run
    /// meanwhile.
    Prepare(Prepare),
    /// Write the login keys of the services and print the matching users for the broker's configuration,
    /// each with the subjects that its service needs and no others.
    ///
    /// Keys that are there stay, so that it is repeated after an upgrade. The file of a service,
    /// `<service>.nk`, is what its setting `bus.credentials` names.
    BrokerUsers(BrokerUsers),
    /// Seal everything that is kept with the newest of the `seal_keys`, and tell which older ones can
    /// be removed.
    ///
    /// Takes the settings of the scheduler. Services may run meanwhile. Ends with 1 as long as
    /// something is sealed with another key, or damaged; repeating it goes on.
    Reseal(Service),
    /// Check settings, broker, streams, database, clocks and certificates, and tell how to mend what
    /// is wrong.
    ///
    /// Takes the settings of the scheduler and changes nothing. Ends with 1 if there is a problem.
    Doctor(Service),
    /// Store pipelines, quotas and connections, all or none; what has not changed keeps its revision.
    Apply(Apply),
    /// Tell what applying would change, also in the targets, and change nothing.
    Plan(Files),
    /// Check whether the connections of a pipeline can be reached and its fields exist.
    Check(Pipeline),
    /// List the streams of a pipeline's source, with fields, types and keys.
    Discover(Pipeline),
    /// List the pipelines.
    Pipelines(Pipelines),
    /// Show a pipeline with its text.
    Show(Name),
    /// Remove a pipeline and what waits for it. Targets and finished runs stay.
    Delete(Name),
    /// Start a run of a pipeline.
    Run(Run),
    /// List runs, newest first.
    Runs(Runs),
    /// Tell what polling costs and brings, and what other intervals would.
    Polls(Polls),
    /// Follow a run to its end and print its ledger.
    Watch(RunId),
    /// End a run before its time. What is loaded stays; the next run goes on from there.
    Cancel(RunId),
    /// List the quotas: how much of each is used, what waits, and when that will be done.
    Quotas(Quotas),
    /// Webhooks that were not delivered, and their receivers.
    #[command(subcommand)]
    Deliveries(Deliveries),
    /// Tokens of the gRPC API.
    #[command(subcommand)]
    Token(Token),
    /// List who did what, with what result, newest first.
    Audit(Audit),
    /// Records that could not be transformed or loaded.
    #[command(subcommand)]
    Quarantine(Quarantine),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Address of the gRPC API; port 0 takes a free one. Default 127.0.0.1:7000.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    /// The NATS server, 2.15.1 or newer. Default: .tools/venv/bin/nats-server, then the PATH.
    #[arg(long, env = "TRIBUTARY_NATS_SERVER", value_name = "FILE")]
    pub(crate) nats_server: Option<PathBuf>,
    /// Settings in YAML: the sections `telemetry`, `http`, `bus`, `scheduler`, `extractor`,
    /// `transformer`, `loader`. The environment goes over it (TRIBUTARY_LOADER__…, and
    /// TRIBUTARY_UP__… for telemetry and http).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// File to create as soon as everything is ready, for scripts that wait for it.
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Service {
    /// Settings in YAML. The environment goes over it (such as TRIBUTARY_LOADER__BUS__PREFIX).
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Prepare {
    #[command(flatten)]
    pub(crate) service: Service,
    /// How long broker and database are waited for.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = runtime::config::parse_duration)]
    pub(crate) patience: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Pipeline files, or folders with *.yaml and *.yml files; `-` reads stdin.
    #[arg(long, short, required = true, num_args = 1.., value_name = "FILE|DIR")]
    pub(crate) file: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Store nothing if anything would be taken away from targets, or from the privacy of fields: what
    /// `plan` calls destructive.
    #[arg(long)]
    pub(crate) refuse_destructive: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Pipeline {
    /// Name of a stored pipeline.
    pub(crate) name: Option<String>,
    /// File of a pipeline that need not be stored; `-` reads stdin.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Pipelines {
    /// Wait up to a minute for the server to answer: the one of --server, or the `tributary up` of
    /// the data folder.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Name of the pipeline.
    pub(crate) name: String,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Name of the pipeline.
    pub(crate) name: String,
    /// Read everything, whatever was read before.
    #[arg(long)]
    pub(crate) full: bool,
    /// Let a snapshot remove any share of the target's rows.
    #[arg(long)]
    pub(crate) confirm_loss: bool,
    /// Accept a field that the source has and the schema does not know, from now on.
    #[arg(long, num_args = 1.., value_name = "FIELD")]
    pub(crate) accept: Vec<String>,
    /// Give the run a parameter, for the templates of its source.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parameter)]
    pub(crate) parameters: Vec<(String, String)>,
    /// Read again what lies in a range of the source's cursor, from this value on. The cursor is left
    /// alone.
    #[arg(long, value_name = "VALUE", conflicts_with = "full")]
    pub(crate) from: Option<String>,
    /// End of the range, which belongs to it.
    #[arg(long, value_name = "VALUE", conflicts_with = "full")]
    pub(crate) to: Option<String>,
    /// Wait for the end and print the ledger.
    #[arg(long)]
    pub(crate) wait: bool,
    /// As --wait, and show the progress of every stage.
    #[arg(long)]
    pub(crate) watch: bool,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write a name, `=` and a value".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Polls {
    /// Only this pipeline.
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Only runs of this pipeline.
    pub(crate) name: Option<String>,
    /// At most so many, 1 to 1000.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct RunId {
    /// Id of the run.
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct Quotas {
    /// Only this quota.
    pub(crate) name: Option<String>,
    /// Remove a quota that no pipeline uses.
    #[arg(long, value_name = "NAME", conflicts_with = "name")]
    pub(crate) delete: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Deliveries {
    /// List the receivers for which webhooks wait, and those that are disabled.
    ///
    /// Each webhook is a record of `tributary quarantine list --code undelivered`.
    List {
        /// Only those of this pipeline.
        pipeline: Option<String>,
    },
    /// Send webhooks again now, instead of when their time has come.
    Resend(Resend),
    /// Call a disabled receiver again, and send it what was set aside.
    Enable {
        /// Name of the pipeline.
        pipeline: String,
        /// Name of the target.
        target: String,
    },
}

/// Which webhooks; all conditions must hold.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Resend {
    /// Of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    /// To this target.
    #[arg(long, value_name = "NAME", requires = "pipeline")]
    pub(crate) target: Option<String>,
    /// With these ids in the quarantine.
    #[arg(long, num_args = 1.., value_name = "ID")]
    pub(crate) id: Vec<i64>,
    /// That failed at this time or later, or were delivered then, such as 2026-11-24T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<DateTime<Utc>>,
    /// Those that were delivered, the last one of each record, instead of those that were not.
    #[arg(long, requires = "pipeline", conflicts_with = "id")]
    pub(crate) delivered: bool,
    /// Of the record with this key, its values joined by commas.
    #[arg(long, requires = "delivered", value_name = "KEY")]
    pub(crate) record: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it, once.
    Create {
        /// Name, which the audit tells.
        name: String,
        /// What its bearer may do.
        #[arg(long, value_enum)]
        role: Role,
        /// How many days it lasts, 1 to 366.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=366))]
        days: u16,
    },
    /// List all tokens, ended ones too.
    List,
    /// End a token before its time, within seconds.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// See pipelines, runs, polls, quotas, and quarantine without contents.
    Viewer,
    /// The same, and start and cancel runs, and replay.
    Operator,
    /// The same, and apply, plan, check, discover and delete pipelines.
    Editor,
    /// See what a viewer sees, and read and drop the contents of quarantined records.
    Privacy,
    /// Everything, tokens and audit too.
    Admin,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// At most so many entries, 1 to 1000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Only entries before this one.
    #[arg(long, value_name = "ID", default_value_t = 0, hide_default_value = true)]
    pub(crate) before: u64,
    /// Compute the digests of all entries again, and tell whether any is missing or was changed.
    #[arg(long, conflicts_with = "before")]
    pub(crate) verify: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Quarantine {
    /// List quarantined records, newest first, without their contents.
    List {
        #[command(flatten)]
        selection: Selection,
        /// At most so many, 1 to 1000.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one quarantined record with its contents.
    Show {
        /// Id in the quarantine.
        id: i64,
    },
    /// Send records through the current revision of their pipeline again, as a run of their own.
    Replay(Required),
    /// Remove records for good.
    Drop(Required),
}

/// Which quarantined records; all conditions must hold.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Of this pipeline.
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<String>,
    /// Of this run.
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<String>,
    /// With this reason code, such as `type` or `constraint`.
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
    /// With these ids.
    #[arg(long, num_args = 1.., value_name = "ID")]
    pub(crate) id: Vec<i64>,
}

/// A selection that is not everything by accident.
#[derive(Debug, Args)]
pub(crate) struct Required {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// All records in the quarantine.
    #[arg(long, conflicts_with_all = ["pipeline", "run", "code", "id"],
        required_unless_present_any = ["pipeline", "run", "code", "id"])]
    pub(crate) all: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_fit_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dropping_everything_must_be_said() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["tributary"], args].concat());
        assert!(parse(&["quarantine", "drop"]).is_err());
        assert!(parse(&["quarantine", "drop", "--all", "--code", "type"]).is_err());
        assert!(parse(&["quarantine", "drop", "--all"]).is_ok());
        assert!(parse(&["quarantine", "drop", "--id", "3", "4"]).is_ok());
    }

    #[test]
    fn a_run_takes_parameters_and_a_range_or_everything() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["tributary", "run"], args].concat());
        assert!(parse(&["orders", "--set", "region"]).is_err());
        assert!(parse(&["orders", "--set", "=eu"]).is_err());
        assert!(parse(&["orders", "--full", "--from", "1997-01-01"]).is_err());
        let args = ["orders", "--set", "region=eu", "--set", "q=a=b", "--from", "1", "--to", "2"];
        let Command::Run(run) = parse(&args).unwrap().command else { panic!("another command") };
        let parameters = [("region", "eu"), ("q", "a=b")];
        assert_eq!(run.parameters, parameters.map(|(key, value)| (key.into(), value.into())));
    }

    #[test]
    fn a_check_wants_a_name_or_a_file() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["tributary", "check"], args].concat());
        assert!(parse(&[]).is_err());
        assert!(parse(&["orders", "-f", "orders.yaml"]).is_err());
        assert!(parse(&["orders"]).is_ok());
    }
}

#[derive(Debug, Args)]
pub(crate) struct BrokerUsers {
    /// Folder of the key files; created if it is missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// `bus.prefix` of the services.
    #[arg(long, default_value = "tributary")]
    pub(crate) prefix: String,
}
