use std::{collections::BTreeMap, time::Duration};

use prost_types::FileDescriptorSet;
use runtime::tls::TlsConfig;
use scheduler::{AccessConfig, Mode};
use spec::SecretText;
use testkit::certificates::Authority;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};
use tonic_prost::ProstCodec;
use wire::{
    Message,
    control::{
        AuditEntry, CreateTokenRequest, CreateTokenResponse, ListAuditRequest, ListAuditResponse,
        ListPipelinesRequest, ListPipelinesResponse, ListTokensRequest, ListTokensResponse,
        RevokeTokenRequest, RevokeTokenResponse, Role, StartRunRequest, StartRunResponse, Token,
        VerifyAuditRequest, VerifyAuditResponse,
    },
};

use crate::house::{House, Replica, within};

pub(crate) const ADMIN: &str = "the-token-of-the-settings";

/// A house whose API asks for tokens.
async fn locked() -> (House, Replica, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("admin-token");
    std::fs::write(&file, format!("{ADMIN}\n")).unwrap();
    let mut house = House::new().await;
    let admin_token = Some(SecretText::new(format!("${{file:{}}}", file.display())));
    house.config.access =
        AccessConfig { mode: Some(Mode::Tokens), admin_token, ..AccessConfig::default() };
    let replica = house.scheduler().await;
    (house, replica, folder)
}

/// Calls any method with any token.
pub(crate) async fn call<Q, A>(
    channel: &Channel,
    token: Option<&str>,
    path: &str,
    request: Q,
) -> Result<A, Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel.clone());
    within(client.ready()).await.unwrap();
    let mut request = Request::new(request);
    if let Some(token) = token {
        let header = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", header);
    }
    request.set_timeout(Duration::from_secs(5));
    let codec = ProstCodec::<Q, A>::default();
    let answer = client.unary(request, path.parse().unwrap(), codec).await;
    answer.map(tonic::Response::into_inner)
}

const ACCESS: &str = "/tributary.control.v1.AccessService";
pub(crate) const LIST: &str = "/tributary.control.v1.PipelineService/ListPipelines";

async fn create(channel: &Channel, name: &str, role: Role, lasts: i64) -> Result<String, Status> {
    let now = std::time::SystemTime::now();
    let mut expires_at = prost_types::Timestamp::from(now);
    expires_at.seconds += lasts;
    let request = CreateTokenRequest {
        name: name.to_owned(),
        role: role.into(),
        expires_at: Some(expires_at),
    };
    let path = format!("{ACCESS}/CreateToken");
    let answer: CreateTokenResponse = call(channel, Some(ADMIN), &path, request).await?;
    assert_eq!(answer.token.as_ref().map(|token: &Token| token.name.as_str()), Some(name));
    Ok(answer.secret)
}

async fn list(channel: &Channel, token: Option<&str>) -> Result<ListPipelinesResponse, Status> {
    call(channel, token, LIST, ListPipelinesRequest {}).await
}

pub(crate) async fn audit(channel: &Channel) -> Vec<AuditEntry> {
    let path = format!("{ACCESS}/ListAudit");
    let request = ListAuditRequest { limit: 1_000, ..Default::default() };
    let answer: ListAuditResponse = call(channel, Some(ADMIN), &path, request).await.unwrap();
    answer.entries
}

/// All methods that the scheduler serves, as `Service/Method`.
fn methods() -> Vec<String> {
    let set = FileDescriptorSet::decode(wire::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in set.file.iter().filter(|file| file.package() == "tributary.control.v1") {
        for service in &file.service {
            for method in &service.method {
                methods.push(format!("{}/{}", service.name(), method.name()));
            }
        }
    }
    methods
}

/// Who may call what, as the documentation promises it.
fn promised(role: Role, method: &str) -> bool {
    let sees = [
        "ListPipelines",
        "GetPipeline",
        "ListRuns",
        "GetRun",
        "WatchRun",
        "ListPolls",
        "ListQuotas",
        "ListQuarantine",
        "ListReceivers",
    ];
    let operates =
        ["StartRun", "CancelRun", "ReplayQuarantine", "ResendDeliveries", "EnableReceiver"];
    let edits = [
        "ApplyPipelines",
        "PlanPipelines",
        "CheckPipeline",
        "DiscoverSource",
        "DeletePipeline",
        "DeleteQuota",
    ];
    let contents = ["GetQuarantined", "DropQuarantine"];
    let method = method.split_once('/').unwrap().1;
    let is_in = |list: &[&str]| list.contains(&method);
    match role {
        Role::Unspecified => false,
        Role::Viewer => is_in(&sees),
        Role::Operator => is_in(&sees) || is_in(&operates),
        Role::Editor => is_in(&sees) || is_in(&operates) || is_in(&edits),
        Role::Privacy => is_in(&sees) || is_in(&contents),
        Role::Admin => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_is_open_to_the_roles_that_may_and_to_nobody_else() {
    let (_house, replica, _folder) = locked().await;
    let channel = &replica.channel;
    let mut tokens = BTreeMap::new();
    for role in [Role::Viewer, Role::Operator, Role::Editor, Role::Privacy, Role::Admin] {
        let name = role.as_str_name().to_lowercase().replace("role_", "");
        tokens.insert(name.clone(), (role, create(channel, &name, role, 3_600).await.unwrap()));
    }
    assert!(methods().len() >= 24, "{:?}", methods());
    for method in methods() {
        let path = format!("/tributary.control.v1.{method}");
        // An empty request of any kind is an empty message.
        let nobody =
            call::<_, ListPipelinesResponse>(channel, None, &path, ListPipelinesRequest {});
        assert_eq!(nobody.await.unwrap_err().code(), Code::Unauthenticated, "{method}");
        for (name, (role, token)) in &tokens {
            let request = ListPipelinesRequest {};
            let answer = call::<_, VerifyAuditRequest>(channel, Some(token), &path, request).await;
            let denied = answer.is_err_and(|status| status.code() == Code::PermissionDenied);
            assert_eq!(!denied, promised(*role, &method), "{name} calls {method}");
        }
    }
    let unknown = call::<_, ListPipelinesResponse>(
        channel,
        Some(ADMIN),
        "/tributary.control.v1.RunService/Unknown",
        ListPipelinesRequest {},
    );
    assert_eq!(unknown.await.unwrap_err().code(), Code::Unimplemented);
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_works_until_it_ends() {
    let (_house, replica, folder) = locked().await;
    let channel = &replica.channel;
    for wrong in ["", "nonsense", "trb_0000"] {
        assert_eq!(list(channel, Some(wrong)).await.unwrap_err().code(), Code::Unauthenticated);
    }
    let secret = create(channel, "ci", Role::Viewer, 3_600).await.unwrap();
    list(channel, Some(&secret)).await.unwrap();
    let again = create(channel, "ci", Role::Viewer, 3_600).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    for lasts in [-1, 0, 367 * 86_400] {
        let refused = create(channel, "other", Role::Viewer, lasts).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{lasts}");
    }
    let refused = create(channel, "other", Role::Unspecified, 3_600).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    let short = create(channel, "short", Role::Viewer, 1).await.unwrap();
    let path = format!("{ACCESS}/RevokeToken");
    let revoke = RevokeTokenRequest { name: "ci".to_owned() };
    let _: RevokeTokenResponse = call(channel, Some(ADMIN), &path, revoke).await.unwrap();
    for ended in [&secret, &short] {
        let status = within(async {
            loop {
                match list(channel, Some(ended)).await {
                    // Believed for some seconds; there is no event for others.
                    Ok(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    Err(status) => return status,
                }
            }
        })
        .await;
        assert_eq!(status.code(), Code::Unauthenticated);
        assert!(!status.message().contains(ended.as_str()));
    }
    // The token of the settings is changed without a restart.
    std::fs::write(folder.path().join("admin-token"), "another").unwrap();
    list(channel, Some("another")).await.unwrap();
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_and_what_was_refused_is_in_the_audit() {
    let (_house, replica, _folder) = locked().await;
    let channel = &replica.channel;
    let viewer = create(channel, "ada", Role::Viewer, 3_600).await.unwrap();
    let start = || StartRunRequest { pipeline: "shop".to_owned(), ..Default::default() };
    let path = "/tributary.control.v1.RunService/StartRun";
    let _ = call::<_, StartRunResponse>(channel, Some(&viewer), path, start()).await.unwrap_err();
    let _ = call::<_, StartRunResponse>(channel, Some(ADMIN), path, start()).await.unwrap_err();
    let _ = call::<_, StartRunResponse>(channel, Some("wrong"), path, start()).await.unwrap_err();
    list(channel, Some(&viewer)).await.unwrap();

    let entries = audit(channel).await;
    let told: Vec<_> = entries
        .iter()
        .rev()
        .map(|e| [&e.actor, &e.action, &e.subject, &e.outcome].map(String::as_str))
        .collect();
    assert_eq!(
        told,
        [
            ["admin", "AccessService.CreateToken", "ada", "OK"],
            ["ada", "RunService.StartRun", "", "PERMISSION_DENIED"],
            ["admin", "RunService.StartRun", "shop", "NOT_FOUND"],
            ["unknown", "RunService.StartRun", "", "UNAUTHENTICATED"],
        ]
    );
    let path = format!("{ACCESS}/VerifyAudit");
    let verified: VerifyAuditResponse =
        call(channel, Some(ADMIN), &path, VerifyAuditRequest {}).await.unwrap();
    // Reading the audit is in it as well.
    assert_eq!((verified.entries, verified.broken_at), (5, 0));
    // Guessing fills nothing.
    for _ in 0..100 {
        let _ = list(channel, Some("wrong")).await.unwrap_err();
    }
    let guesses = audit(channel).await.iter().filter(|e| e.actor == "unknown").count();
    assert!((10..70).contains(&guesses), "{guesses} guesses in the audit");
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_no_gap_in_the_audit() {
    let (_house, replica, _folder) = locked().await;
    let channel = &replica.channel;
    for number in 0..400_u64 {
        let name = format!("token-{number}");
        // Some go before the call has arrived, some in its middle, some after it.
        let patience = Duration::from_micros(40 * number);
        let called = create(channel, &name, Role::Viewer, 60);
        tokio::time::timeout(patience, called).await.ok();
    }
    let path = format!("{ACCESS}/ListTokens");
    within(async {
        loop {
            let answer: ListTokensResponse =
                call(channel, Some(ADMIN), &path, ListTokensRequest {}).await.unwrap();
            let entries = audit(channel).await;
            let told = entries.iter().filter(|e| e.action.ends_with("CreateToken")).count();
            if told == answer.tokens.len() && told > 0 {
                break;
            }
            // What goes on tells nobody when it has ended.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_others_reach_says_who_may_call_it() {
    let mut house = House::new().await;
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let run = scheduler::run_on(listener, house.config.clone(), CancellationToken::new());
    let error = format!("{:#}", within(Box::pin(run)).await.unwrap_err());
    assert!(error.contains("access.mode") && error.contains("tokens"), "{error}");
    house.config.access.mode = Some(Mode::None);
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(scheduler::run_on(listener, house.config.clone(), shutdown.clone()));
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
    let channel = within(channel.connect()).await.unwrap();
    list(&channel, None).await.unwrap();
    shutdown.cancel();
    within(run).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_asks_for_a_certificate_of_the_authority() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let authority = Authority::new();
    authority.issue("server");
    authority.issue("client");
    let mut house = House::new().await;
    house.config.access.tls = Some(TlsConfig {
        certificate: authority.path("server.pem"),
        key: authority.path("server.key"),
        client_ca: Some(authority.path("ca.pem")),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(scheduler::run_on(listener, house.config.clone(), shutdown.clone()));

    let read = |name: &str| std::fs::read(authority.path(name)).unwrap();
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem")));
    let identity = Identity::from_pem(read("client.pem"), read("client.key"));
    let connect = |tls: ClientTlsConfig| {
        let endpoint = Channel::from_shared(url.clone()).unwrap().tls_config(tls).unwrap();
        within(async move { endpoint.connect().await })
    };
    let channel = connect(trusting.clone().identity(identity)).await.unwrap();
    list(&channel, None).await.unwrap();
    // Without a certificate the server hangs up, at the latest when it is called.
    if let Ok(channel) = connect(trusting).await {
        list(&channel, None).await.unwrap_err();
    }
    shutdown.cancel();
    within(run).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_certificate_is_used_without_a_restart() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let (before, after) = (Authority::new(), Authority::new());
    before.issue("server");
    after.issue("server");
    let mut house = House::new().await;
    let (certificate, key) = (before.path("server.pem"), before.path("server.key"));
    house.config.access.tls =
        Some(TlsConfig { certificate: certificate.clone(), key: key.clone(), client_ca: None });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let run = tokio::spawn(scheduler::run_on(listener, house.config.clone(), shutdown.clone()));
    let connect = |authority: &Authority| {
        let root = Certificate::from_pem(std::fs::read(authority.path("ca.pem")).unwrap());
        let tls = ClientTlsConfig::new().ca_certificate(root);
        let endpoint = Channel::from_shared(url.clone()).unwrap().tls_config(tls).unwrap();
        async move { endpoint.connect().await }
    };
    let going = within(connect(&before)).await.unwrap();

    // Half of a pair is of no use: what was there stays in use.
    std::fs::copy(after.path("server.pem"), &certificate).unwrap();
    within(connect(&before)).await.unwrap();
    std::fs::copy(after.path("server.key"), &key).unwrap();
    within(async {
        // The files are looked at every two seconds; there is no event for others.
        while connect(&after).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    within(connect(&before)).await.unwrap_err();
    list(&going, None).await.unwrap();
    shutdown.cancel();
    within(run).await.unwrap().unwrap();
}
