{{- define "skyreels.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* Never cut: a name that is too long is refused, because KubeRay makes longer names from it. */}}
{{- define "skyreels.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "skyreels.name" .) .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "skyreels.name" .) -}}
{{- end -}}
{{- end -}}

{{/* On pods, and what selects them. Nothing here may change between two versions of the chart. */}}
{{- define "skyreels.selectorLabels" -}}
app.kubernetes.io/name: {{ include "skyreels.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* On the chart's own objects, never on Ray pods. */}}
{{- define "skyreels.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "skyreels.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "skyreels.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Worker groups in their order, as a JSON list of {name, group}. */}}
{{- define "skyreels.groups" -}}
{{- $keys := list -}}
{{- range $name, $group := .Values.pools -}}
{{- $keys = append $keys (printf "%09d %s" (int64 ($group.order | default 0)) $name) -}}
{{- end -}}
{{- $groups := list -}}
{{- range sortAlpha $keys -}}
{{- $name := index (splitList " " .) 1 -}}
{{- $groups = append $groups (dict "name" $name "group" (index $.Values.pools $name)) -}}
{{- end -}}
{{- dict "groups" $groups | toJson -}}
{{- end -}}

{{/* The Serve config as it is printed: the generated one, with the site's sections over its arguments. */}}
{{- define "skyreels.serveConfig" -}}
{{- $config := deepCopy .Values.serve.config -}}
{{- $site := dict -}}
{{- range $key, $section := .Values.site -}}
{{- if not (kindIs "invalid" $section) -}}{{- $_ := set $site $key $section -}}{{- end -}}
{{- end -}}
{{- range $config.applications -}}
{{- $_ := set . "args" (mustMergeOverwrite .args (deepCopy $site)) -}}
{{- if and .autoscaling_policy .args.store.url -}}
{{- $_ := set .autoscaling_policy.policy_kwargs "store_url" .args.store.url -}}
{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "skyreels.modelsClaim" -}}
{{- .Values.models.pvc.existingClaim | default (printf "%s-models" (include "skyreels.fullname" .)) -}}
{{- end -}}

{{/* Whether something of the release downloads weights before or beside the Ray pods. */}}
{{- define "skyreels.fetches" -}}
{{- $models := .Values.models -}}
{{- if and $models.items $models.fetch.enabled (or (eq $models.source "pvc") (and (eq $models.source "hostCache") $models.hostCache.fill)) -}}true{{- end -}}
{{- end -}}
