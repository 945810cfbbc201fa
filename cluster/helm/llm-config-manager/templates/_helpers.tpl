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
# This version has no authentication; the NetworkPolicy says who reaches it.
auth: "off"
insecure: true
{{- range $option, $value := .Values.config }}
{{ $option }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}
