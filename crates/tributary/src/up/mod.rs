//! All services in one process, with a NATS server as the child and everything in one folder.

mod folder;
mod nats;

use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::Context;
use bus::SealKeys;
use runtime::{
    Readiness,
    config::{Environment, Tree},
    http, shutdown,
    tasks::Tasks,
    telemetry::{self, Metrics},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::{
    folder::{Addresses, Folder},
    nats::Nats,
};
use crate::{
    cli::Up,
    failure::Failure,
    service::{DEADLINE, Process, install_crypto},
};

const GIVE_LISTEN: &str = "stop what listens there, or give --listen another address or port 0";

const SERVICES: [&str; 4] = ["scheduler", "extractor", "transformer", "loader"];

/// Serves until a signal, or until a part fails.
pub(crate) async fn run(options: Up, data: &Path) -> Result<(), Failure> {
    let settings = Settings::load(&options, &Environment::of_process())
        .context("the settings cannot be used")?;
    let binary = nats::find(options.nats_server.as_deref()).await?;
    install_crypto();
    let telemetry = telemetry::init("up", &settings.process.telemetry)
        .context("the telemetry cannot be set up")?;
    let outcome = serve(settings, options.ready_file, &binary, data, telemetry.metrics()).await;
    telemetry.flush().await;
    outcome
}

async fn serve(
    mut settings: Settings,
    ready_file: Option<PathBuf>,
    binary: &Path,
    data: &Path,
    metrics: Metrics,
) -> Result<(), Failure> {
    let shutdown = shutdown::on_signal().context("signals cannot be listened to")?;
    let folder = Folder::open(data)?;
    let listener = bind("the gRPC API", settings.scheduler.listen, GIVE_LISTEN).await?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (push, ingest) = (&settings.extractor.push, &settings.extractor.ingest);
    let webhooks =
        bind("the webhook server", push.listen.unwrap_or(any), "set `extractor.push.listen`")
            .await?;
    let ingest =
        bind("gRPC ingest", ingest.listen.unwrap_or(any), "set `extractor.ingest.listen`").await?;
    let url = |listener: &TcpListener| -> Result<String, Failure> {
        let address = listener.local_addr().context("a listener has no address")?;
        Ok(format!("http://{address}"))
    };
    let addresses =
        Addresses { control: url(&listener)?, webhooks: url(&webhooks)?, ingest: url(&ingest)? };
    let pushes = extractor::Listeners { webhooks: Some(webhooks), ingest: Some(ingest) };
    let web = http::bind(&settings.process.http).await;
    let web = web.context("the address of `http` is not free")?;

    let mut nats = Nats::start(binary, &folder.path("nats")).await?;
    let readiness = Readiness::expecting(SERVICES);
    settings.connect(&folder, &nats, &readiness)?;

    let ending = shutdown.child_token();
    let mut tasks = Tasks::new(&ending);
    tasks.spawn("http", web.serve(metrics, readiness.clone(), tasks.shutdown()));
    settings.start(&mut tasks, listener, pushes);
    let announced = announce(&folder, &addresses, ready_file.as_deref(), &readiness);
    let outcome = until_ended(tasks, &mut nats, &ending, announced).await;

    folder.forget_addresses();
    if let Some(file) = ready_file {
        // It may never have been written.
        fs::remove_file(file).ok();
    }
    nats.stop().await;
    tracing::info!("ended, nothing is left running");
    outcome
}

/// Waits for the end of the services, and brings it about when the NATS server is gone.
async fn until_ended(
    tasks: Tasks,
    nats: &mut Nats,
    ending: &CancellationToken,
    announced: impl Future<Output = io::Result<()>>,
) -> Result<(), Failure> {
    let services = tasks.wait(DEADLINE);
    tokio::pin!(services, announced);
    let mut waiting = true;
    loop {
        tokio::select! {
            outcome = &mut services => return outcome.map_err(|error| anyhow::Error::from(error).into()),
            gone = nats.ended() => {
                ending.cancel();
                // Without a broker they have nothing to finish; what failed first is the reason.
                services.await.ok();
                return Err(gone);
            }
            outcome = &mut announced, if waiting => {
                waiting = false;
                if let Err(error) = outcome {
                    ending.cancel();
                    services.await.ok();
                    let hint = "check the rights of the data folder";
                    return Err(Failure::new("the address cannot be written", error, hint));
                }
            }
        }
    }
}

/// Tells clients, scripts and people as soon as everything is ready.
async fn announce(
    folder: &Folder,
    addresses: &Addresses,
    ready_file: Option<&Path>,
    readiness: &Readiness,
) -> io::Result<()> {
    readiness.ready().await;
    let Addresses { control: url, webhooks, ingest } = addresses;
    folder.write_addresses(addresses)?;
    if let Some(file) = ready_file {
        fs::write(file, url)?;
    }
    let mut stdout = io::stdout().lock();
    // Nobody may be reading.
    writeln!(stdout, "tributary is ready: gRPC API at {url}, Ctrl-C ends it").ok();
    writeln!(stdout, "webhooks at {webhooks}/hooks/<pipeline>, gRPC ingest at {ingest}").ok();
    stdout.flush().ok();
    Ok(())
}

async fn bind(what: &str, address: SocketAddr, hint: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|error| Failure::new(format!("{what} cannot listen on {address}"), error, hint))
}

/// The settings of all services.
struct Settings {
    process: Process,
    bus: bus::Config,
    scheduler: scheduler::Config,
    extractor: extractor::Config,
    transformer: transformer::Config,
    loader: loader::Config,
}

impl Settings {
    fn load(options: &Up, environment: &Environment) -> anyhow::Result<Self> {
        let mut tree = Tree::read(options.config.as_deref())?.overlay("up", "", environment)?;
        for section in SERVICES.into_iter().chain(["bus"]) {
            tree = tree.overlay(section, section, environment)?;
        }
        let mut settings = Self {
            process: Process::take(&mut tree)?,
            bus: tree.take("bus")?,
            scheduler: tree.take("scheduler")?,
            extractor: tree.take("extractor")?,
            transformer: tree.take("transformer")?,
            loader: tree.take("loader")?,
        };
        tree.finish::<Nothing>()?;
        if let Some(listen) = options.listen {
            settings.scheduler.listen = listen;
        }
        Ok(settings)
    }

    /// Points all services to our folder, our NATS server and our latch.
    fn connect(
        &mut self,
        folder: &Folder,
        nats: &Nats,
        readiness: &Readiness,
    ) -> Result<(), Failure> {
        if self.scheduler.database == scheduler::Config::default().database {
            let file = folder.path("scheduler.db");
            self.scheduler.database = scheduler::Database::new(file.display().to_string());
        }
        if self.bus.seal_keys.is_none() {
            let keys = folder.path("seal_keys");
            SealKeys::create(&keys).context("the keys of the data folder cannot be made")?;
            self.bus.seal_keys = Some(keys);
        }
        self.bus.servers = vec![nats.url().to_owned()];
        self.scheduler.bus = self.bus.clone();
        self.extractor.bus = self.bus.clone();
        self.transformer.bus = self.bus.clone();
        self.loader.bus = self.bus.clone();
        self.scheduler.readiness = readiness.clone();
        self.extractor.readiness = readiness.clone();
        self.transformer.readiness = readiness.clone();
        self.loader.readiness = readiness.clone();
        Ok(())
    }

    fn start(self, tasks: &mut Tasks, listener: TcpListener, pushes: extractor::Listeners) {
        let ending = tasks.shutdown();
        tasks.spawn("scheduler", scheduler::run_on(listener, self.scheduler, ending.clone()));
        tasks.spawn("extractor", extractor::run_on(pushes, self.extractor, ending.clone()));
        tasks.spawn("transformer", transformer::run(self.transformer, ending.clone()));
        tasks.spawn("loader", loader::run(self.loader, ending));
    }
}

/// What is left of the settings when all sections are taken out.
#[derive(serde::Deserialize)]
struct Nothing {}
