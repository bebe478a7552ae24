{{/* Name of every object: `gemini-operator` when the release is called so. */}}
{{- define "gemini-operator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "gemini-operator.controller" -}}{{ include "gemini-operator.fullname" . }}-controller{{- end -}}
{{- define "gemini-operator.receiver" -}}{{ include "gemini-operator.fullname" . }}-receiver{{- end -}}

{{/* Port of the Service for deliveries. */}}
{{- define "gemini-operator.webhookPort" -}}
{{ .Values.receiver.service.port | default (ternary 443 80 (not (empty .Values.receiver.tls.secretName))) }}
{{- end -}}

{{/* The operator's two Secrets. The names are the program's, not the release's. */}}
{{- define "gemini-operator.signingSecret" -}}gemini-operator-signing{{- end -}}
{{- define "gemini-operator.identitySecret" -}}gemini-operator-identity{{- end -}}

{{/* Takes (list ROOT COMPONENT); COMPONENT may be empty. */}}
{{- define "gemini-operator.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "gemini-operator.labels" -}}
{{- $root := index . 0 -}}
{{ include "gemini-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: gemini-operator
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "gemini-operator.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The namespaces that are watched, separated by commas: the operator's own is always one of them, because a webhook
     there serves all. Empty: all namespaces. */}}
{{- define "gemini-operator.watched" -}}
{{- if .Values.watchNamespaces -}}
{{- append .Values.watchNamespaces .Release.Namespace | uniq | sortAlpha | join "," -}}
{{- end -}}
{{- end -}}

{{/* What both processes may never do without, and nothing of it may be switched off by a value. */}}
{{- define "gemini-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "gemini-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "gemini-operator.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}

{{/* Scheduling and the rest that a cluster's owner decides. Takes the values of one process. */}}
{{- define "gemini-operator.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes (list ROOT NAME COMPONENT). */}}
{{- define "gemini-operator.policyBinding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ index . 1 }}
  labels:
    {{- include "gemini-operator.labels" (list (index . 0) (index . 2)) | nindent 4 }}
spec:
  policyName: {{ index . 1 }}
  validationActions: [Deny, Audit]
{{- end -}}
