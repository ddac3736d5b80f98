{{- define "rerank-canary.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "rerank-canary.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "rerank-canary.labels" -}}
{{ include "rerank-canary.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "rerank-canary.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else }}{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s%s" .Chart.AppVersion (ternary "-cuda" "" .Values.gpu.enabled)) }}{{ end }}
{{- end }}

{{- define "rerank-canary.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "rerank-canary.name" .) }}
{{- end }}

{{- define "rerank-canary.hasRedis" -}}{{ if or .Values.redis.url .Values.secrets.redisUrl.name }}yes{{ end }}{{- end }}

{{- /* More than one pod may run at once: by number, or by the autoscaler. */ -}}
{{- define "rerank-canary.isMany" -}}{{ if or .Values.autoscaling.enabled (gt (int .Values.replicas) 1) }}yes{{ end }}{{- end }}

{{- /* What of the rollout would be lost with the pod has to be on a volume. */ -}}
{{- define "rerank-canary.hasVolume" -}}
{{- if and .Values.persistence.enabled (not (and (include "rerank-canary.hasRedis" .) .Values.flag.unleashUrl .Values.secrets.salt.name)) }}yes{{ end }}
{{- end }}

{{- /* Whole cores of limits.cpu: the model would take every core of the node, which a limit does not hide. */ -}}
{{- define "rerank-canary.cores" -}}
{{- $cpu := toString .Values.resources.limits.cpu -}}
{{- $cores := ternary (divf (float64 (trimSuffix "m" $cpu)) 1000) (float64 $cpu) (hasSuffix "m" $cpu) -}}
{{- max 1 (floor $cores | int) -}}
{{- end }}

{{- /* Variables of every container, from values and Secrets. Goes before the TOML file. */ -}}
{{- define "rerank-canary.env" -}}
- {name: RERANK_CANARY_CONFIG, value: /etc/rerank-canary/rerank-canary.toml}
- {name: RERANK_CANARY__DATA_DIR, value: /data}
- {name: HOME, value: /data}
- {name: RERANK_CANARY__FLAG__KEY, value: {{ .Values.flag.key | quote }}}
{{- with .Values.flag.unleashUrl }}
- {name: UNLEASH_URL, value: {{ . | quote }}}
- {name: RERANK_CANARY__FLAG__PROJECT, value: {{ $.Values.flag.project | quote }}}
{{- end }}
{{- with .Values.flag.adminEnvironment }}
- {name: RERANK_CANARY__FLAG__ADMIN_ENVIRONMENT, value: {{ . | quote }}}
{{- end }}
{{- with .Values.model.name }}
- {name: RERANK_MODEL, value: {{ . | quote }}}
- {name: DEVICE, value: {{ ternary "cuda" "cpu" $.Values.gpu.enabled }}}
{{- if not (dig "backends" "cross-encoder" "threads" 0 ($.Values.config | fromToml)) }}
- {name: RERANK_CANARY__BACKENDS__CROSS_ENCODER__THREADS, value: {{ include "rerank-canary.cores" $ | quote }}}
{{- end }}
{{- if or (eq . "shipped") (hasPrefix "/" .) }}
- {name: HF_HUB_OFFLINE, value: "1"}
{{- end }}
{{- end }}
{{- with .Values.redis.url }}
- {name: REDIS_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.openai.baseUrl }}
- {name: OPENAI_BASE_URL, value: {{ . | quote }}}
{{- end }}
{{- with .Values.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
- {name: OTEL_EXPORTER_OTLP_PROTOCOL, value: {{ $.Values.otlp.protocol | quote }}}
{{- end }}
{{- if not .Values.secrets.dataKeys.name }}
- {name: RERANK_CANARY__AUTH__ALLOW_ANONYMOUS, value: "true"}
{{- end }}
{{- range $variable, $field := dict "OPENAI_API_KEY" "openaiKey" "REDIS_URL" "redisUrl" "UNLEASH_API_TOKEN" "unleashToken" "UNLEASH_ADMIN_TOKEN" "unleashAdminToken" "RERANK_CANARY__AUTH__DATA_KEYS" "dataKeys" "RERANK_CANARY__AUTH__CONTROL_TOKENS" "controlTokens" "RERANK_CANARY__IDENTITY__SALT" "salt" "OTEL_EXPORTER_OTLP_HEADERS" "otlpHeaders" }}
{{- $secret := get $.Values.secrets $field }}
{{- if and $secret.name (not (and (eq $field "redisUrl") $.Values.redis.url)) }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $secret.name | quote }}, key: {{ $secret.key | quote }}}}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "rerank-canary.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "rerank-canary.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* Where pods may run, of those that serve and of those that do something once. */ -}}
{{- define "rerank-canary.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "rerank-canary.mounts" -}}
- {name: config, mountPath: /etc/rerank-canary, readOnly: true}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
{{- if .Values.model.claim }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "rerank-canary.volumes" -}}
- name: config
  configMap: {name: {{ include "rerank-canary.name" . }}}
- name: data
{{- if include "rerank-canary.hasVolume" . }}
  persistentVolumeClaim: {claimName: {{ .Values.persistence.existingClaim | default (include "rerank-canary.name" .) }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .Values.cacheSize }}}
{{- end }}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- with .Values.model.claim }}
- name: models
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
{{- end }}
{{- end }}
