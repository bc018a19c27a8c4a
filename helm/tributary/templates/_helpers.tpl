{{- define "tributary.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tributary.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tributary.labels" -}}
{{ include "tributary.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "tributary.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "tributary.natsServers" -}}
{{- if .Values.trial.enabled }}{{ list (printf "nats://%s-nats:4222" (include "tributary.name" .)) | toJson }}{{ else }}{{ .Values.nats.servers | toJson }}{{ end }}
{{- end }}

{{- define "tributary.databaseSecret" -}}
{{- if .Values.trial.enabled }}{{ include "tributary.name" . }}-database{{ else }}{{ .Values.database.secret }}{{ end }}
{{- end }}

{{/* Refuses what the profile does not allow, each with the remedy. */}}
{{- define "tributary.check" -}}
{{- if not .Values.trial.enabled }}
{{- if not .Values.nats.servers }}{{ fail "nats.servers is empty: name the servers of your NATS cluster, or set trial.enabled and profile: trial to look around" }}{{ end }}
{{- if not .Values.database.secret }}{{ fail "database.secret is empty: name the Secret that holds the address of the control plane's PostgreSQL database" }}{{ end }}
{{- end }}
{{- if and .Values.trial.enabled (ne .Values.profile "trial") }}{{ fail "trial.enabled needs profile: trial, because its servers keep one copy only" }}{{ end }}
{{- if and .Values.access.oidc (not .Values.access.adminToken.secret) }}{{ fail "access.oidc needs access.adminToken.secret: without it everybody may call the gRPC API" }}{{ end }}
{{- with .Values.pipelines }}
{{- if gt (list .files .configMap .volume | compact | len) 1 }}{{ fail "pipelines.files, pipelines.configMap and pipelines.volume: keep one of them" }}{{ end }}
{{- if and .path (not .volume) }}{{ fail "pipelines.path is a folder of pipelines.volume, which is empty" }}{{ end }}
{{- end }}
{{- with .Values.push.webhooks }}
{{- if and (or .ingress.enabled .gateway.enabled) (not .enabled) }}{{ fail "push.webhooks.ingress or gateway is enabled, and push.webhooks.enabled is not: enable both" }}{{ end }}
{{- if and .ingress.enabled (not .ingress.host) }}{{ fail "push.webhooks.ingress.host is empty: name the host that senders call" }}{{ end }}
{{- if and .gateway.enabled (not .gateway.parents) }}{{ fail "push.webhooks.gateway.parents is empty: name the Gateway, as in an HTTPRoute's parentRefs" }}{{ end }}
{{- end }}
{{- range $name, $service := .Values.services }}
{{- if gt (int $service.autoscaling.min) (int $service.autoscaling.max) }}{{ fail (printf "services.%s.autoscaling.min is above max: swap them" $name) }}{{ end }}
{{- end }}
{{- if eq .Values.profile "production" }}
{{- with .Values.push.webhooks }}
{{- if and .ingress.enabled (not .ingress.tlsSecret) }}{{ fail "profile: production needs push.webhooks.ingress.tlsSecret, because webhooks carry personal data" }}{{ end }}
{{- if and .enabled $.Values.networkPolicy.enabled (not .from) }}{{ fail "profile: production needs push.webhooks.from: say where the Ingress controller or the Gateway runs" }}{{ end }}
{{- end }}
{{- if lt (int .Values.nats.replicas) 3 }}{{ fail "profile: production needs nats.replicas of 3 or more, so that the loss of one server loses nothing" }}{{ end }}
{{- if not .Values.nats.ca.secret }}{{ fail "profile: production needs nats.ca.secret, which turns TLS to the brokers on" }}{{ end }}
{{- if not .Values.nats.credentials.secret }}{{ fail "profile: production needs nats.credentials.secret, so that the brokers know who calls" }}{{ end }}
{{- if not .Values.access.adminToken.secret }}{{ fail "profile: production needs access.adminToken.secret, so that callers of the gRPC API have to send a token" }}{{ end }}
{{- if and .Values.telemetry.otlpEndpoint (not (hasPrefix "https://" .Values.telemetry.otlpEndpoint)) }}{{ fail "profile: production needs an https:// telemetry.otlpEndpoint, because it may leave the node" }}{{ end }}
{{- if not .Values.access.tls.secret }}{{ fail "profile: production needs access.tls.secret, because tokens would travel in clear" }}{{ end }}
{{- if and .Values.push.grpc.enabled (not .Values.push.grpc.tls.secret) }}{{ fail "profile: production needs push.grpc.tls.secret, because records and tokens would travel in clear" }}{{ end }}
{{- if not .Values.image.digest }}{{ fail "profile: production needs image.digest, because a tag may name another image tomorrow" }}{{ end }}
{{- range $name, $service := .Values.services }}
{{- range $section := list "bus" "access" "database" "require_database_tls" }}
{{- if hasKey $service.settings $section }}{{ fail (printf "profile: production refuses services.%s.settings.%s, which would go past what the profile asks for: set nats, access and database instead" $name $section) }}{{ end }}
{{- end }}
{{- if and (lt (int $service.replicas) 2) (not $service.autoscaling.enabled) }}{{ fail (printf "profile: production needs services.%s.replicas of 2 or more" $name) }}{{ end }}
{{- end }}
{{- if ne .Values.nats.sync "always" }}{{ fail "profile: production needs nats.sync=always, and servers with `sync_interval: always`, because a power cut loses what was acknowledged otherwise" }}{{ end }}
{{- end }}
{{- end }}

{{/* The settings of one service: those of the values file over what the chart knows. */}}
{{- define "tributary.settings" -}}
{{- $root := .root }}
{{- $bus := dict "servers" (include "tributary.natsServers" $root | fromJsonArray) "prefix" $root.Values.nats.prefix "replicas" (ternary 1 (int $root.Values.nats.replicas) $root.Values.trial.enabled) }}
{{- if $root.Values.nats.credentials.secret }}{{ $_ := set $bus "credentials" "/etc/nats/credentials/nats.creds" }}{{ end }}
{{- if $root.Values.nats.ca.secret }}{{ $_ := set $bus "tls_ca" "/etc/nats/ca/ca.crt" }}{{ end }}
{{- if $root.Values.sealKeys.secret }}{{ $_ := set $bus "seal_keys" "/etc/seal-keys" }}{{ end }}
{{- $telemetry := dict "format" "json" "filter" $root.Values.telemetry.filter "sample_ratio" $root.Values.telemetry.sampleRatio }}
{{- if $root.Values.telemetry.otlpEndpoint }}{{ $_ := set $telemetry "otlp_endpoint" $root.Values.telemetry.otlpEndpoint }}{{ end }}
{{- if $root.Values.telemetry.otlpCa.secret }}{{ $_ := set $telemetry "otlp_ca" "/etc/otlp-ca/ca.crt" }}{{ end }}
{{- $settings := dict "bus" $bus "telemetry" $telemetry "http" (dict "listen" "0.0.0.0:9464") }}
{{- toYaml (mergeOverwrite $settings (deepCopy .own) (deepCopy .service.settings)) }}
{{- end }}

{{/* Everything one service consists of, but for its Services. */}}
{{- define "tributary.service" -}}
{{- $root := .root }}
{{- $name := .name }}
{{- $service := index $root.Values.services $name }}
{{- $full := printf "%s-%s" (include "tributary.name" $root) $name }}
{{- $settings := include "tributary.settings" (dict "root" $root "service" $service "own" .settings) }}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
data:
  config.yaml: |
    {{- $settings | nindent 4 }}
  {{- with .files }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
automountServiceAccountToken: false
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  {{- if not $service.autoscaling.enabled }}
  replicas: {{ $service.replicas }}
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels:
      {{- include "tributary.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $name }}
  template:
    metadata:
      labels:
        {{- include "tributary.labels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ $name }}
      annotations:
        checksum/config: {{ $settings | sha256sum }}
        {{- with $service.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      {{- include "tributary.pod" (dict "root" $root "service" $service "full" $full) | nindent 6 }}
      # Longer than the 30 s in which the service finishes what it has in hand.
      terminationGracePeriodSeconds: 45
      {{- if $root.Values.topologySpread }}
      topologySpreadConstraints:
        {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
        - topologyKey: {{ $key }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "tributary.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $name }}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ $name }}
          image: {{ include "tributary.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ $name }}, --config, /etc/tributary/config.yaml]
          {{- include "tributary.containerSecurity" $root | nindent 10 }}
          {{- with $service.env }}
          env:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with $service.envFrom }}
          envFrom:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          ports:
            - {name: metrics, containerPort: 9464, protocol: TCP}
            {{- range .ports }}
            - {name: {{ .name }}, containerPort: {{ .port }}, protocol: TCP}
            {{- end }}
          # A process that is up lives, whatever the broker or the database do.
          startupProbe:
            httpGet: {path: /health/live, port: metrics}
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: {path: /health/live, port: metrics}
            periodSeconds: 10
            failureThreshold: 3
          # Ready is connected and consuming.
          readinessProbe:
            httpGet: {path: /health/ready, port: metrics}
            periodSeconds: 5
            failureThreshold: 2
          # What is sent here goes on coming until everybody knows that the pod ends.
          lifecycle:
            preStop:
              sleep: {seconds: 5}
          resources:
            {{- toYaml $service.resources | nindent 12 }}
          volumeMounts:
            - {name: config, mountPath: /etc/tributary, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- include "tributary.commonMounts" $root | nindent 12 }}
            {{- with concat (.volumeMounts | default list) $service.volumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap: {name: {{ $full }}}
        - name: tmp
          emptyDir: {sizeLimit: 64Mi}
        {{- include "tributary.commonVolumes" (dict "root" $root "service" .name) | nindent 8 }}
        {{- with concat (.volumes | default list) $service.volumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- if $root.Values.podDisruptionBudget.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  maxUnavailable: {{ $root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "tributary.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ $name }}
{{- end }}
{{- if and $service.autoscaling.enabled (eq ($service.autoscaling.by | default "cpu") "backlog") }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $full }}}
  minReplicaCount: {{ $service.autoscaling.min }}
  maxReplicaCount: {{ $service.autoscaling.max }}
  pollingInterval: 15
  cooldownPeriod: 300
  # A scheduler that cannot be asked changes nothing for a while, then gives the least.
  fallback: {failureThreshold: 6, replicas: {{ $service.autoscaling.min }}}
  triggers:
    - type: external
      metadata:
        scalerAddress: {{ include "tributary.name" $root }}-scheduler.{{ $root.Release.Namespace }}:7001
        stage: {{ $name }}
        backlog: {{ $service.autoscaling.backlog | quote }}
        {{- if $service.autoscaling.age }}
        age: {{ $service.autoscaling.age | quote }}
        {{- end }}
{{- else if $service.autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $full }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ $name }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ $full }}}
  minReplicas: {{ $service.autoscaling.min }}
  maxReplicas: {{ $service.autoscaling.max }}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: {{ $service.autoscaling.cpuPercent }}}
{{- end }}
{{- end }}

{{/* The settings of the scheduler, which `prepare` takes too. */}}
{{- define "tributary.schedulerSettings" -}}
{{- $access := dict "mode" "none" }}
{{- if .Values.access.adminToken.secret }}{{ $access = dict "mode" "tokens" "admin_token" "${file:/etc/access/token}" }}{{ end }}
{{- if .Values.access.tls.secret }}{{ $_ := set $access "tls" (dict "certificate" "/etc/api-tls/tls.crt" "key" "/etc/api-tls/tls.key") }}{{ end }}
{{- with .Values.access.oidc }}{{ $_ := set $access "oidc" . }}{{ end }}
{{- $settings := dict "listen" "0.0.0.0:7000" "access" $access "database" "${file:/etc/database/url}" }}
{{- if eq .Values.profile "production" }}{{ $_ := set $settings "require_database_tls" true }}{{ end }}
{{- if include "tributary.scaledByBacklog" . }}{{ $_ := set $settings "scaler_listen" "0.0.0.0:7001" }}{{ end }}
{{- toYaml $settings }}
{{- end }}

{{/* What a pod needs that serves the gRPC API, or with `client` calls it, as lists of volumes and mounts. */}}
{{- define "tributary.accessVolumes" -}}
{{- $volumes := list }}
{{- with .root.Values.access.adminToken }}
{{- if .secret }}{{ $volumes = append $volumes (dict "name" "access" "secret" (dict "secretName" .secret "defaultMode" 288 "items" (list (dict "key" .key "path" "token")))) }}{{ end }}
{{- end }}
{{- with .root.Values.access.tls.secret }}
{{- $items := ternary (list (dict "key" "ca.crt" "path" "ca.crt")) (list (dict "key" "tls.crt" "path" "tls.crt") (dict "key" "tls.key" "path" "tls.key")) ($.client | default false) }}
{{- $volumes = append $volumes (dict "name" "api-tls" "secret" (dict "secretName" . "defaultMode" 288 "items" $items)) }}
{{- end }}
{{- toYaml $volumes }}
{{- end }}

{{- define "tributary.accessMounts" -}}
{{- $mounts := list }}
{{- if .root.Values.access.adminToken.secret }}{{ $mounts = append $mounts (dict "name" "access" "mountPath" "/etc/access" "readOnly" true) }}{{ end }}
{{- if .root.Values.access.tls.secret }}{{ $mounts = append $mounts (dict "name" "api-tls" "mountPath" "/etc/api-tls" "readOnly" true) }}{{ end }}
{{- toYaml $mounts }}
{{- end }}

{{/* Not empty if KEDA scales a service. */}}
{{- define "tributary.scaledByBacklog" -}}
{{- range $_, $service := .Values.services }}
{{- if and $service.autoscaling.enabled (eq ($service.autoscaling.by | default "cpu") "backlog") }}true{{ end }}
{{- end }}
{{- end }}

{{- define "tributary.databaseVolumes" -}}
{{- $key := ternary "url" .Values.database.key .Values.trial.enabled }}
- name: database
  secret: {secretName: {{ include "tributary.databaseSecret" . }}, defaultMode: 288, items: [{key: {{ $key }}, path: url}]}
{{- with .Values.database.ca }}
{{- if .secret }}
- name: database-ca
  secret: {secretName: {{ .secret }}, defaultMode: 288, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end }}

{{/* And where they are mounted. */}}
{{- define "tributary.databaseMounts" -}}
- {name: database, mountPath: /etc/database, readOnly: true}
{{- if .Values.database.ca.secret }}
- {name: database-ca, mountPath: /etc/database-ca, readOnly: true}
{{- end }}
{{- end }}

{{/* What every pod has in common. */}}
{{- define "tributary.pod" -}}
serviceAccountName: {{ .full }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with .service.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .service.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .service.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "tributary.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "tributary.commonMounts" -}}
{{- if .Values.nats.credentials.secret }}
- {name: nats-credentials, mountPath: /etc/nats/credentials, readOnly: true}
{{- end }}
{{- if .Values.nats.ca.secret }}
- {name: nats-ca, mountPath: /etc/nats/ca, readOnly: true}
{{- end }}
{{- if .Values.telemetry.otlpCa.secret }}
- {name: otlp-ca, mountPath: /etc/otlp-ca, readOnly: true}
{{- end }}
{{- if .Values.sealKeys.secret }}
- {name: seal-keys, mountPath: /etc/seal-keys, readOnly: true}
{{- end }}
{{- end }}

{{/* Each service sees its own credentials alone. */}}
{{- define "tributary.commonVolumes" -}}
{{- $service := .service }}
{{- with .root.Values.nats.credentials }}
{{- if .secret }}
- name: nats-credentials
  secret: {secretName: {{ .secret }}, defaultMode: 288, items: [{key: {{ ternary (printf "%s.nk" $service) .key .perService }}, path: nats.creds}]}
{{- end }}
{{- end }}
{{- with .root.Values.nats.ca }}
{{- if .secret }}
- name: nats-ca
  secret: {secretName: {{ .secret }}, defaultMode: 288, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- with .root.Values.telemetry.otlpCa }}
{{- if .secret }}
- name: otlp-ca
  secret: {secretName: {{ .secret }}, defaultMode: 288, items: [{key: {{ .key }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- with .root.Values.sealKeys.secret }}
- name: seal-keys
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- end }}

{{/* The client in a job: arguments in `args`. */}}
{{- define "tributary.client" -}}
image: {{ include "tributary.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: {{ .args | toJson }}
env:
  - {name: TRIBUTARY_SERVER, value: "{{ ternary "https" "http" (ne .root.Values.access.tls.secret "") }}://{{ include "tributary.name" .root }}-scheduler:7000"}
  {{- if .root.Values.access.adminToken.secret }}
  - {name: TRIBUTARY_TOKEN_FILE, value: /etc/access/token}
  {{- end }}
  {{- if .root.Values.access.tls.secret }}
  - {name: TRIBUTARY_CA, value: /etc/api-tls/ca.crt}
  {{- end }}
{{ include "tributary.containerSecurity" .root }}
resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {memory: 64Mi}}
volumeMounts:
  - {name: pipelines, mountPath: /pipelines, readOnly: true}
  {{- range (include "tributary.accessMounts" . | fromYamlArray) }}
  - {{ toJson . }}
  {{- end }}
{{- end }}

{{/* A ServiceAccount of a hook: `name`, `hook`. */}}
{{- define "tributary.hookAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tributary.labels" .root | nindent 4 }}
  annotations:
    {{- include "tributary.hook" (dict "hook" .hook "weight" "0") | nindent 4 }}
automountServiceAccountToken: false
{{- end }}

{{- define "tributary.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation
{{- end }}

{{/* The port that a URL names, or else the default. */}}
{{- define "tributary.port" -}}
{{- (urlParse .url).host | regexFind ":[0-9]+$" | trimPrefix ":" | default .default -}}
{{- end }}

{{/* The ports of all brokers, each once. */}}
{{- define "tributary.natsPorts" -}}
{{- $ports := list }}
{{- range .Values.nats.servers }}{{ $ports = append $ports (include "tributary.port" (dict "url" . "default" 4222) | int) }}{{ end }}
{{- $ports | default (list 4222) | uniq | toJson -}}
{{- end }}

{{/* Everywhere but at the metadata service, as a peer of a network policy. */}}
{{- define "tributary.outside" -}}
- ipBlock:
    cidr: {{ .outside.cidr }}
    except: {{ .outside.except | toJson }}
{{- end }}
