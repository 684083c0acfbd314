{{/* One entry of workerGroupSpecs; takes root, name and group. No `replicas`: those are the autoscaler's. */}}
{{- define "skyreels.workerGroup" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $group := .group -}}
{{- $accelerator := dict -}}
{{- if $group.accelerator -}}{{- $accelerator = index $values.accelerators $group.accelerator -}}{{- end -}}
{{- $gpus := int64 ($group.gpus | default 0) -}}
{{- $hosts := int64 ($group.hostsPerReplica | default 1) -}}
{{- $mounts := ne false $group.models -}}
{{- $capacity := $group.capacity | default "on-demand" -}}
{{- $selector := mustMergeOverwrite (dict) (deepCopy ($accelerator.nodeSelector | default dict)) (deepCopy ($group.nodeSelector | default dict)) -}}
{{- if and $mounts (eq $values.models.source "hostCache") -}}
{{- $selector = mustMergeOverwrite $selector (deepCopy $values.models.hostCache.nodeSelector) -}}
{{- end -}}
{{- $tolerations := concat ($accelerator.tolerations | default list) ($group.tolerations | default list) -}}
groupName: {{ .name }}
minReplicas: {{ int64 (ternary 1 $group.min (kindIs "invalid" $group.min)) }}
maxReplicas: {{ int64 ($group.max | default 1) }}
numOfHosts: {{ $hosts }}
{{- if not (kindIs "invalid" $group.idleTimeoutSeconds) }}
idleTimeoutSeconds: {{ int64 $group.idleTimeoutSeconds }}
{{- end }}
{{- if not (kindIs "invalid" $group.priority) }}
priority: {{ int64 $group.priority }}
{{- end }}
labels:
  {{- range $key, $value := $group.labels }}
  {{ $key }}: {{ $value | quote }}
  {{- end }}
  skyreels.ai/pool: {{ .name }}
  {{- with $group.accelerator }}
  skyreels.ai/accelerator: {{ . }}
  {{- end }}
  ray.io/market-type: {{ $capacity }}
rayStartParams: {}
template:
  metadata:
    labels:
      {{- include "skyreels.selectorLabels" $root | nindent 6 }}
      skyreels.ai/pool: {{ .name }}
      {{- if or $group.internet (and $mounts (eq $values.models.source "initDownload")) }}
      skyreels.ai/internet: "true"
      {{- end }}
    {{- if and $gpus (ne $capacity "spot") }}
    annotations:
      cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
      karpenter.sh/do-not-disrupt: "true"
    {{- end }}
  spec:
    serviceAccountName: {{ include "skyreels.fullname" $root }}-worker
    automountServiceAccountToken: false
    restartPolicy: Never
    terminationGracePeriodSeconds: {{ add 60 (int64 $values.drain.seconds) }}
    {{- with $values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $accelerator.runtimeClassName }}
    runtimeClassName: {{ . }}
    {{- end }}
    {{- with $group.priorityClassName }}
    priorityClassName: {{ . }}
    {{- end }}
    securityContext:
      {{- include "skyreels.podSecurity" $root | nindent 6 }}
    {{- with $selector }}
    nodeSelector:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with $tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $group.fabricTopologyKey }}
    affinity:
      podAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: {{ $group.fabricTopologyKey }}
            labelSelector:
              matchLabels:
                {{- include "skyreels.selectorLabels" $root | nindent 16 }}
                skyreels.ai/pool: {{ .name }}
            matchLabelKeys: [ray.io/worker-group-replica-name]
    {{- end }}
    {{- if and $mounts $values.models.items }}
    {{- if eq $values.models.source "initDownload" }}
    initContainers:
      - {{- include "skyreels.fetchContainer" $root | nindent 8 }}
    {{- else if include "skyreels.fetches" $root }}
    initContainers:
      - {{- include "skyreels.awaitContainer" $root | nindent 8 }}
    {{- end }}
    {{- end }}
    containers:
      - name: ray-worker
        image: {{ include "skyreels.image" $root }}
        imagePullPolicy: {{ $values.image.pullPolicy }}
        env:
          - name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
            value: {{ int64 $values.drain.seconds | quote }}
          {{- include "skyreels.rayEnv" $root | nindent 10 }}
          {{- with $group.env }}
          {{- toYaml . | nindent 10 }}
          {{- end }}
        ports:
          - name: metrics
            containerPort: 8080
          - name: serve
            containerPort: 8000
        resources:
          {{- range list "requests" "limits" }}
          {{ . }}:
            cpu: {{ $group.cpus | default 4 | toString | quote }}
            memory: {{ $group.memory | default "16Gi" | quote }}
            {{- if $gpus }}
            {{ $accelerator.resourceName | default "nvidia.com/gpu" }}: {{ $gpus | quote }}
            {{- end }}
          {{- end }}
        securityContext:
          {{- include "skyreels.containerSecurity" $root | nindent 10 }}
        volumeMounts:
          - name: tmp
            mountPath: /tmp
          {{- if $group.shm }}
          - name: shm
            mountPath: /dev/shm
          {{- end }}
          {{- if $mounts }}
          - name: models
            mountPath: {{ $values.models.mountPath }}
            readOnly: true
          {{- end }}
          {{- if $values.state.persistent }}
          - name: state
            mountPath: {{ $values.state.path }}
          {{- end }}
    volumes:
      - name: tmp
        emptyDir: {}
      {{- if $group.shm }}
      - name: shm
        emptyDir:
          medium: Memory
          sizeLimit: {{ $group.shm }}
      {{- end }}
      {{- if $mounts }}
      - {{- include "skyreels.modelsVolume" $root | nindent 8 }}
      {{- end }}
      {{- if $values.state.persistent }}
      - name: state
        persistentVolumeClaim:
          claimName: {{ $values.state.claim.existingClaim | default (printf "%s-state" (include "skyreels.fullname" $root)) }}
      {{- end }}
{{- end -}}
