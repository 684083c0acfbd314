{{- define "skyreels.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.security.runAsUser }}
runAsGroup: {{ int64 .Values.security.runAsUser }}
fsGroup: {{ int64 .Values.security.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "skyreels.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "skyreels.secretEnv" -}}
- name: {{ .env }}
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end -}}

{{/* Caches lie on /tmp because the root file system is read-only. */}}
{{- define "skyreels.cacheEnv" -}}
- name: HOME
  value: /tmp
- name: HF_HOME
  value: /tmp/cache/huggingface
- name: XDG_CACHE_HOME
  value: /tmp/cache
{{- end -}}

{{- define "skyreels.storeEnv" -}}
{{- with .Values.jobStore }}
{{- if .host }}
- name: PGHOST
  value: {{ .host | quote }}
- name: PGPORT
  value: {{ int64 .port | quote }}
{{- end }}
{{- if .user }}
- name: PGUSER
  value: {{ .user | quote }}
{{- end }}
{{- if .existingSecret }}
{{ include "skyreels.secretEnv" (dict "env" "PGPASSWORD" "secret" .existingSecret "key" .passwordKey) }}
{{- end }}
{{- end }}
{{- with .Values.objectStore }}
{{- if .existingSecret }}
{{ include "skyreels.secretEnv" (dict "env" "AWS_ACCESS_KEY_ID" "secret" .existingSecret "key" .accessKeyIdKey) }}
{{ include "skyreels.secretEnv" (dict "env" "AWS_SECRET_ACCESS_KEY" "secret" .existingSecret "key" .secretAccessKeyKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Of head and workers. */}}
{{- define "skyreels.rayEnv" -}}
{{ include "skyreels.cacheEnv" . }}
- name: HF_HUB_OFFLINE
  value: "1"
{{- if .Values.ray.haProxy }}
- name: RAY_SERVE_ENABLE_HA_PROXY
  value: "1"
- name: RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S
  value: {{ int64 .Values.drain.seconds | quote }}
{{- end }}
{{- include "skyreels.storeEnv" . }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "skyreels.hubEnv" -}}
{{ include "skyreels.cacheEnv" . }}
{{- with .Values.models.fetch }}
{{- if .tokenSecret }}
{{ include "skyreels.secretEnv" (dict "env" "HF_TOKEN" "secret" .tokenSecret "key" .tokenKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* name=repository@revision of every checkpoint; the name alone where toy weights are written. */}}
{{- define "skyreels.modelArgs" -}}
{{- range .Values.models.items }}
- {{ if .repo }}{{ printf "%s=%s@%s" .name .repo (.revision | default "main") | quote }}{{ else }}{{ .name | quote }}{{ end }}
{{- end }}
{{- end -}}

{{/* A container that downloads what is missing below the mount path. */}}
{{- define "skyreels.fetchContainer" -}}
name: fetch-models
image: {{ include "skyreels.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [skyreels, checkpoints, fetch, {{ .Values.models.mountPath | quote }}]
args:
  {{- include "skyreels.modelArgs" . | nindent 2 }}
env:
  {{- include "skyreels.hubEnv" . | nindent 2 }}
resources:
  {{- range list "requests" "limits" }}
  {{ . }}:
    cpu: {{ $.Values.models.fetch.cpu | quote }}
    memory: {{ $.Values.models.fetch.memory | quote }}
  {{- end }}
securityContext:
  {{- include "skyreels.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: models
    mountPath: {{ .Values.models.mountPath }}
  - name: tmp
    mountPath: /tmp
{{- end -}}

{{/* Waits until all checkpoints are whole. */}}
{{- define "skyreels.awaitContainer" -}}
name: await-models
image: {{ include "skyreels.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [skyreels, checkpoints, await, {{ .Values.models.mountPath | quote }}]
args:
  {{- include "skyreels.modelArgs" . | nindent 2 }}
resources:
  {{- range list "requests" "limits" }}
  {{ . }}:
    cpu: 100m
    memory: 512Mi
  {{- end }}
securityContext:
  {{- include "skyreels.containerSecurity" . | nindent 2 }}
volumeMounts:
  - name: models
    mountPath: {{ .Values.models.mountPath }}
    readOnly: true
  - name: tmp
    mountPath: /tmp
{{- end -}}

{{- define "skyreels.modelsVolume" -}}
name: models
{{- with .Values.models }}
{{- if eq .source "pvc" }}
persistentVolumeClaim:
  claimName: {{ include "skyreels.modelsClaim" $ }}
{{- else if eq .source "hostCache" }}
hostPath:
  path: {{ .hostCache.path }}
  type: DirectoryOrCreate
{{- else if eq .source "image" }}
image:
  reference: {{ .image.reference }}
  pullPolicy: {{ .image.pullPolicy }}
{{- else }}
emptyDir: {}
{{- end }}
{{- end }}
{{- end -}}
