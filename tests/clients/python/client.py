"""A round through the API with a client that protoc generated.

Asks for health and reflection, asks what KEDA asks of an external scaler, stores a pipeline, lists pipelines, runs it, watches the run to its
end and lists its quarantine. Ends with 0 when the run succeeded with balanced books.
"""

import sys

import grpc
from externalscaler import externalscaler_pb2, externalscaler_pb2_grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tributary.control.v1 import (
    pipeline_pb2,
    pipeline_pb2_grpc,
    quarantine_pb2,
    quarantine_pb2_grpc,
    run_pb2,
    run_pb2_grpc,
)

PIPELINES = "tributary.control.v1.PipelineService"
SERVICES = [
    "externalscaler.ExternalScaler",
    PIPELINES,
    "tributary.control.v1.QuarantineService",
    "tributary.control.v1.RunService",
]


def check_health(channel):
    health = health_pb2_grpc.HealthStub(channel)
    for service in ["", *SERVICES]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, (service, answer)
    print(f"health: {len(SERVICES)} services are serving")


def check_reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    missing = set(SERVICES) - set(database.get_services())
    assert not missing, f"reflection does not know {missing}"
    described = DescriptorPool(database).FindServiceByName(PIPELINES)
    methods = [method.name for method in described.methods]
    assert "ApplyPipelines" in methods, methods
    print(f"reflection: {PIPELINES} has {len(methods)} methods")


def apply(channel, file):
    pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
    with open(file, encoding="utf-8") as text:
        source = pipeline_pb2.PipelineSource(file=file, yaml=text.read())
    answer = pipelines.ApplyPipelines(
        pipeline_pb2.ApplyPipelinesRequest(pipelines=[source]), timeout=60
    )
    assert not answer.problems, answer.problems
    name = answer.applied[0].name
    listed = pipelines.ListPipelines(pipeline_pb2.ListPipelinesRequest(), timeout=10).pipelines
    assert name in [pipeline.name for pipeline in listed], listed
    print(f"pipelines: {', '.join(pipeline.name for pipeline in listed)}")
    return name


def refuses_what_is_not_there(channel):
    pipelines = pipeline_pb2_grpc.PipelineServiceStub(channel)
    try:
        pipelines.GetPipeline(pipeline_pb2.GetPipelineRequest(name="not-there"), timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        return
    raise AssertionError("a pipeline that is not there was found")


def asks_as_keda_does(channel):
    scaler = externalscaler_pb2_grpc.ExternalScalerStub(channel)
    metadata = {"scalerAddress": "scheduler:7000", "stage": "loader", "backlog": "8", "age": "60"}
    loader = externalscaler_pb2.ScaledObjectRef(
        name="loader", namespace="tributary", scalerMetadata=metadata
    )
    specs = scaler.GetMetricSpec(loader, timeout=10).metricSpecs
    targets = {spec.metricName: (spec.targetSize, spec.targetSizeFloat) for spec in specs}
    assert targets == {"tributary-loader-backlog": (8, 8.0), "tributary-loader-age": (60, 60.0)}
    for metric in targets:
        request = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=loader, metricName=metric)
        (value,) = scaler.GetMetrics(request, timeout=10).metricValues
        # Nothing was pushed or run yet.
        assert (value.metricName, value.metricValue, value.metricValueFloat) == (metric, 0, 0.0)
    assert not scaler.IsActive(loader, timeout=10).result
    changes = scaler.StreamIsActive(loader, timeout=10)
    assert not next(changes).result
    changes.cancel()
    try:
        scaler.IsActive(externalscaler_pb2.ScaledObjectRef(name="loader"), timeout=10)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        assert "stage" in error.details(), error
    else:
        raise AssertionError("a trigger without a stage was taken")
    print(f"scaler: {', '.join(targets)}")


def run(channel, name):
    runs = run_pb2_grpc.RunServiceStub(channel)
    started = runs.StartRun(run_pb2.StartRunRequest(pipeline=name), timeout=60).run
    last = started
    for state in runs.WatchRun(run_pb2.WatchRunRequest(id=started.id), timeout=300):
        last = state.run
        print(f"run: {run_pb2.RunState.Name(last.state)}, {last.ledger.extracted} extracted")
    assert last.state == run_pb2.RUN_STATE_SUCCEEDED, last
    assert last.ledger.balanced, last.ledger
    for target in last.ledger.targets:
        accounted = target.loaded + target.unchanged + target.quarantined
        accounted += last.ledger.filtered + last.ledger.quarantined
        assert accounted == last.ledger.extracted, last.ledger
    listed = runs.ListRuns(run_pb2.ListRunsRequest(pipeline=name), timeout=10).runs
    assert started.id in [run.id for run in listed], listed
    return last


def list_quarantine(channel, finished):
    stub = quarantine_pb2_grpc.QuarantineServiceStub(channel)
    selection = quarantine_pb2.QuarantineSelection(run=finished.id)
    answer = stub.ListQuarantine(
        quarantine_pb2.ListQuarantineRequest(selection=selection), timeout=10
    )
    ledger = finished.ledger
    counted = ledger.quarantined + sum(target.quarantined for target in ledger.targets)
    assert answer.total == counted, (answer.total, counted)
    print(f"quarantine: {answer.total} records")


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: client.py ADDRESS PIPELINE_FILE")
    address, file = sys.argv[1:]
    with grpc.insecure_channel(address.removeprefix("http://")) as channel:
        check_health(channel)
        check_reflection(channel)
        refuses_what_is_not_there(channel)
        asks_as_keda_does(channel)
        name = apply(channel, file)
        finished = run(channel, name)
        list_quarantine(channel, finished)


if __name__ == "__main__":
    main()
