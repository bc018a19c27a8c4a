//! Which subjects each service needs, and no others.

use std::fmt::Write;

use secrecy::{ExposeSecret, SecretString};

use crate::{Bucket, Names, Stream, TaskKind};

/// Who connects to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Runs, ledger, gRPC API; `tributary prepare` and `tributary doctor` as well.
    Scheduler,
    /// Reads sources.
    Extractor,
    /// Maps, types and checks.
    Transformer,
    /// Writes to targets.
    Loader,
}

impl Service {
    /// All services, in the order of the flow.
    pub const ALL: [Self; 4] = [Self::Scheduler, Self::Extractor, Self::Transformer, Self::Loader];

    /// Returns its name in settings and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scheduler => "scheduler",
            Self::Extractor => "extractor",
            Self::Transformer => "transformer",
            Self::Loader => "loader",
        }
    }
}

/// What a service may do on the broker. Subjects, with `*` for one token and `>` for the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects to publish to. Requests to JetStream are among them.
    pub publish: Vec<String>,
    /// Subjects to subscribe to.
    pub subscribe: Vec<String>,
}

impl Permissions {
    /// Returns what a service needs.
    #[must_use]
    pub fn of(names: &Names, service: Service) -> Self {
        let mut needs = Needs::new(names, service);
        match service {
            Service::Scheduler => {
                for stream in [Stream::Tasks, Stream::Raw, Stream::Ready, Stream::Ledger] {
                    needs.publish(names.all_of(stream));
                }
                needs.consume(Stream::Ledger, &names.all_of(Stream::Ledger));
                needs.consume(Stream::Quarantine, &names.all_of(Stream::Quarantine));
                needs.publish(names.ask_extract().to_string());
                needs.publish(names.ask_load().to_string());
                needs.administer();
                for bucket in Bucket::ALL {
                    needs.read(bucket);
                    needs.write(bucket);
                }
            }
            Service::Extractor => {
                for kind in [TaskKind::Plan, TaskKind::Extract, TaskKind::Fetch] {
                    needs.consume(Stream::Tasks, &names.tasks_of(kind));
                }
                needs.publish(names.tasks_of(TaskKind::Extract));
                needs.publish(names.tasks_of(TaskKind::Fetch));
                needs.report();
                needs.publish(names.all_of(Stream::Raw));
                needs.follow_deliveries();
                needs.answer(names.ask_extract().to_string());
                needs.read(Bucket::Pipelines);
                for bucket in [Bucket::Progress, Bucket::Quotas] {
                    needs.read(bucket);
                    needs.write(bucket);
                }
            }
            Service::Transformer => {
                needs.consume(Stream::Raw, &names.all_of(Stream::Raw));
                needs.publish(names.all_of(Stream::Ready));
                needs.report();
                needs.read(Bucket::Pipelines);
            }
            Service::Loader => {
                needs.consume(Stream::Ready, &names.all_of(Stream::Ready));
                needs.consume(Stream::Tasks, &names.tasks_of(TaskKind::Sweep));
                needs.report();
                needs.answer(names.ask_load().to_string());
                needs.read(Bucket::Pipelines);
                for bucket in [Bucket::Sent, Bucket::Quotas] {
                    needs.read(bucket);
                    needs.write(bucket);
                }
            }
        }
        needs.found
    }
}

/// Collects what one service needs.
struct Needs<'a> {
    names: &'a Names,
    found: Permissions,
}

impl<'a> Needs<'a> {
    /// What all of them do: ask JetStream, find what is there, and create what is missing.
    fn new(names: &'a Names, service: Service) -> Self {
        let inbox = format!("{}.>", names.inbox(service));
        let found = Permissions { publish: Vec::new(), subscribe: vec![inbox] };
        let mut needs = Self { names, found };
        needs.publish("$JS.API.INFO".to_owned());
        for stream in needs.streams() {
            needs.publish(format!("$JS.API.STREAM.INFO.{stream}"));
            needs.publish(format!("$JS.API.STREAM.CREATE.{stream}"));
        }
        needs
    }

    /// The streams of everything on the broker.
    fn streams(&self) -> Vec<String> {
        let streams = Stream::ALL.map(|stream| self.names.stream(stream));
        let buckets = Bucket::ALL.map(|bucket| self.names.bucket_stream(bucket));
        let deliveries = self.names.deliveries_stream();
        streams.into_iter().chain(buckets).chain([deliveries]).collect()
    }

    fn publish(&mut self, subject: String) {
        self.found.publish.push(subject);
    }

    /// Answers who asks on a subject. To the inbox of the one who asked it may publish once.
    fn answer(&mut self, subject: String) {
        self.found.subscribe.push(subject);
    }

    fn report(&mut self) {
        self.publish(self.names.all_of(Stream::Ledger));
        self.publish(self.names.all_of(Stream::Quarantine));
    }

    fn consume(&mut self, stream: Stream, filter: &str) {
        let stream = self.names.stream(stream);
        self.publish(format!("$JS.API.CONSUMER.CREATE.{stream}.*.{filter}"));
        for subject in [
            format!("$JS.API.CONSUMER.INFO.{stream}.*"),
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
            format!("$JS.ACK.{stream}.>"),
        ] {
            if !self.found.publish.contains(&subject) {
                self.publish(subject);
            }
        }
    }

    fn follow_deliveries(&mut self) {
        let stream = self.names.deliveries_stream();
        self.publish(self.names.deliveries().to_string());
        // Consumers that end with the connection get their names from the server.
        self.publish(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        for verb in ["CREATE", "INFO", "DELETE", "MSG.NEXT"] {
            self.publish(format!("$JS.API.CONSUMER.{verb}.{stream}.>"));
        }
    }

    fn read(&mut self, bucket: Bucket) {
        let stream = self.names.bucket_stream(bucket);
        self.publish(format!("$JS.API.DIRECT.GET.{stream}.>"));
        self.publish(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        for verb in ["CREATE", "INFO", "DELETE"] {
            self.publish(format!("$JS.API.CONSUMER.{verb}.{stream}.>"));
        }
        self.publish(format!("$JS.FC.{stream}.>"));
    }

    fn write(&mut self, bucket: Bucket) {
        self.publish(format!("$KV.{}.>", self.names.bucket(bucket)));
    }

    /// Adapts the settings of streams, counts what they hold and removes what belongs to a pipeline.
    fn administer(&mut self) {
        for stream in self.streams() {
            self.publish(format!("$JS.API.STREAM.UPDATE.{stream}"));
        }
        for stream in Stream::ALL.map(|stream| self.names.stream(stream)) {
            self.publish(format!("$JS.API.STREAM.PURGE.{stream}"));
            self.publish(format!("$JS.API.STREAM.MSG.GET.{stream}"));
            self.publish(format!("$JS.API.CONSUMER.NAMES.{stream}"));
            self.publish(format!("$JS.API.CONSUMER.LIST.{stream}"));
            self.publish(format!("$JS.API.CONSUMER.DELETE.{stream}.*"));
            let info = format!("$JS.API.CONSUMER.INFO.{stream}.*");
            if !self.found.publish.contains(&info) {
                self.publish(info);
            }
        }
    }
}

/// Returns the `authorization` block of a NATS server's configuration: one user per service, known by
/// its public key, with what it needs.
#[must_use]
pub fn authorization(names: &Names, users: &[(Service, String)]) -> String {
    let mut text = "authorization {\n  users: [\n".to_owned();
    for (service, public_key) in users {
        let Permissions { publish, subscribe } = Permissions::of(names, *service);
        let list = |subjects: Vec<String>| {
            subjects.iter().fold(String::new(), |mut list, subject| {
                writeln!(list, "          \"{subject}\"").expect("a text can be written to");
                list
            })
        };
        write!(
            text,
            "    # {}\n    {{\n      nkey: {public_key}\n      permissions: {{\n        \
             publish: {{allow: [\n{}        ]}}\n        subscribe: {{allow: [\n{}        ]}}\n        \
             allow_responses: {{max: 1, expires: \"1m\"}}\n      }}\n    }}\n",
            service.name(),
            list(publish),
            list(subscribe),
        )
        .expect("a text can be written to");
    }
    text.push_str("  ]\n}\n");
    text
}

/// A pair of keys with which a service logs in.
#[derive(Debug)]
pub struct LoginKey {
    /// The public half, for the configuration of the servers.
    pub public: String,
    /// The secret half, for the file that `bus.credentials` names.
    pub seed: SecretString,
}

impl LoginKey {
    /// Makes a pair from the randomness of the system.
    ///
    /// # Panics
    ///
    /// Never: a pair that was just made has both halves.
    #[must_use]
    pub fn random() -> Self {
        let pair = nkeys::KeyPair::new_user();
        let seed = pair.seed().expect("a new pair has its seed");
        Self { public: pair.public_key(), seed: seed.into() }
    }

    /// Reads the seed of a user's nkey, which begins with `SU`; `None`: it is something else.
    #[must_use]
    pub fn from_seed(seed: SecretString) -> Option<Self> {
        let text = seed.expose_secret().trim();
        let pair = nkeys::KeyPair::from_seed(text).ok().filter(|_| text.starts_with("SU"))?;
        Some(Self { public: pair.public_key(), seed: text.to_owned().into() })
    }
}
