{{- define "lcm.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "lcm.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "lcm.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "lcm.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lcm.headless" -}}
{{ include "lcm.fullname" . }}-headless
{{- end -}}

{{- /* What selects the nodes; never changes, so no versions in it. */ -}}
{{- define "lcm.selector" -}}
app.kubernetes.io/name: {{ include "lcm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "lcm.labels" -}}
app.kubernetes.io/name: {{ include "lcm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "lcm.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* HOST part of a node's addresses, for the pod with this ordinal: dict "root" $ "ordinal" N. */ -}}
{{- define "lcm.host" -}}
{{ include "lcm.fullname" .root }}-{{ .ordinal }}.{{ include "lcm.headless" .root }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end -}}

{{- define "lcm.initialCluster" -}}
{{- $members := list -}}
{{- range $ordinal := until (int .Values.founders) -}}
{{- $members = append $members (printf "%d=%s:50061" (add1 $ordinal) (include "lcm.host" (dict "root" $ "ordinal" $ordinal))) -}}
{{- end -}}
{{- join "," $members -}}
{{- end -}}

{{- /* The delay before SIGTERM, then what the program allows itself: 10 s to drain (DRAIN_TIMEOUT), 15 s to hand over
       leadership and close (REPLICA_STOP_TIMEOUT); 10 s to spare. cluster/test/kubernetes.sh holds it to the source. */ -}}
{{- define "lcm.gracePeriod" -}}
{{- add (int .Values.shutdown.delaySeconds) 10 15 10 -}}
{{- end -}}

{{- define "lcm.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "lcm.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* What the schema cannot say, because it needs two values. */ -}}
{{- define "lcm.check" -}}
{{- if lt (int .Values.replicas) (int .Values.founders) -}}
{{- fail (printf "replicas (%d) must not be less than founders (%d): founders are the pods that found the cluster; to shrink below, see docs/operations/kubernetes.md" (int .Values.replicas) (int .Values.founders)) -}}
{{- end -}}
{{- range $ordinal, $generation := .Values.disks -}}
{{- if ge (int $ordinal) (int $.Values.replicas) -}}
{{- fail (printf "disks.%s: there is no pod %s with replicas %d" $ordinal $ordinal (int $.Values.replicas)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.auth.enabled (not .Values.auth.bootstrapTokenSecret) -}}
{{- fail "auth.bootstrapTokenSecret is missing: name the Secret that holds the first admin token in the key `token`; cluster/make-secrets.sh makes one" -}}
{{- end -}}
{{- if and .Values.tls.clientCertificates (not .Values.tls.secret) -}}
{{- fail "tls.clientCertificates needs tls.secret: certificates are only asked for over TLS" -}}
{{- end -}}
{{- if and .Values.restore.file (not .Values.restore.token) -}}
{{- fail "restore.token is missing: choose a text that no earlier restore had, such as the date" -}}
{{- end -}}
{{- if and .Values.restore.file .Values.disks -}}
{{- fail "restore.file founds a new cluster on new disks, so disks must be empty: node ids start again" -}}
{{- end -}}
{{- end -}}

{{- define "lcm.configFile" -}}
http-addr: "{{ .Values.listenAddress }}:8080"
metrics-addr: "{{ .Values.listenAddress }}:9090"
grpc-addr: "{{ .Values.listenAddress }}:50051"
raft-addr: "{{ .Values.listenAddress }}:50061"
{{- if .Values.auth.enabled }}
auth: "on"
bootstrap-token-file: /var/run/secrets/llm-config-auth/token
{{- else }}
# The NetworkPolicy says who reaches it.
auth: "off"
insecure: true
{{- end }}
{{- if .Values.secrets.masterKeySecret }}
master-key-file: /var/run/secrets/llm-config-keys/master-key
{{- end }}
{{- if .Values.tls.secret }}
tls-cert: /var/run/secrets/llm-config-tls/tls.crt
tls-key: /var/run/secrets/llm-config-tls/tls.key
tls-ca: /var/run/secrets/llm-config-tls/ca.crt
{{- if .Values.tls.clientCertificates }}
tls-client-ca: /var/run/secrets/llm-config-tls/ca.crt
{{- end }}
{{- end }}
{{- range $option, $value := .Values.config }}
{{ $option }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{- define "lcm.scheme" -}}
{{- if .Values.tls.secret }}https{{ else }}http{{ end -}}
{{- end -}}

{{- /* How `llm-config` in a container proves who it is, and whom it believes: environment, mounts, and the volumes of a
       job. A job has a token of its own, and of the certificates only the authority. */ -}}
{{- define "lcm.clientEnv" -}}
{{- if .Values.auth.enabled }}
- name: LLM_CONFIG_TOKEN_FILE
  value: /var/run/secrets/llm-config-auth/token
{{- end }}
{{- if .Values.tls.secret }}
- name: LLM_CONFIG_TLS_CA
  value: /var/run/secrets/llm-config-tls/ca.crt
{{- end }}
{{- end -}}

{{- define "lcm.clientMounts" -}}
{{- if .Values.auth.enabled }}
- name: auth
  mountPath: /var/run/secrets/llm-config-auth
  readOnly: true
{{- end }}
{{- if .Values.tls.secret }}
- name: tls
  mountPath: /var/run/secrets/llm-config-tls
  readOnly: true
{{- end }}
{{- end -}}

{{- define "lcm.jobVolumes" -}}
{{- if .Values.auth.enabled }}
- name: auth
  secret:
    secretName: {{ .Values.auth.jobTokenSecret | default .Values.auth.bootstrapTokenSecret }}
    defaultMode: 0440
    items: [{key: token, path: token}]
{{- end }}
{{- if .Values.tls.secret }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secret }}
    defaultMode: 0440
    items: [{key: ca.crt, path: ca.crt}]
{{- end }}
{{- end -}}
