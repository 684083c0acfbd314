{{/* Refuses, all at once and in words, what the operator or Ray would refuse later or wait for in silence. */}}
{{- define "skyreels.validate" -}}
{{- $found := dict "bad" list -}}
{{- range tuple "names" "apis" "groups" "ray" "upgrade" "serve" "stores" "models" "edge" -}}
{{- include (printf "skyreels.validate.%s" .) (dict "root" $ "found" $found) -}}
{{- end -}}
{{- if $found.bad -}}
{{- fail (printf "\n\nThe values cannot be installed:\n- %s\n" (join "\n- " $found.bad)) -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.bad" -}}
{{- $_ := set .found "bad" (append .found.bad .say) -}}
{{- end -}}

{{- define "skyreels.validate.names" -}}
{{- $name := include "skyreels.fullname" .root -}}
{{- if gt (len $name) 47 -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "the name %q has %d characters; KubeRay takes at most 47 for a RayService: choose a shorter release name or set fullnameOverride" $name (len $name))) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "the name %q must be lower case letters, digits and hyphens and begin with a letter; set fullnameOverride" $name)) -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.validate.apis" -}}
{{- $v := .root.Values -}}
{{- $needs := dict "ray.io/v1" "the RayService (install the KubeRay operator 1.7 or newer)" -}}
{{- if or $v.monitoring.podMonitor.enabled $v.monitoring.prometheusRule.enabled -}}
{{- $_ := set $needs "monitoring.coreos.com/v1" "monitoring.podMonitor and monitoring.prometheusRule (install the Prometheus operator, or switch them off)" -}}
{{- end -}}
{{- if $v.httpRoute.enabled -}}{{- $_ := set $needs "gateway.networking.k8s.io/v1" "httpRoute (install the Gateway API, or use ingress)" -}}{{- end -}}
{{- if eq $v.upgrade.strategy "Incremental" -}}{{- $_ := set $needs "gateway.networking.k8s.io/v1" "upgrade.strategy Incremental (install the Gateway API, or use NewCluster)" -}}{{- end -}}
{{- if $v.kueue.queueName -}}{{- $_ := set $needs "kueue.x-k8s.io/v1beta2" "kueue.queueName (install Kueue 0.17 or newer, or unset it)" -}}{{- end -}}
{{- if $v.checkApis -}}
{{- range $api, $why := $needs -}}
{{- if not ($.root.Capabilities.APIVersions.Has $api) -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "the cluster does not offer %s, which is needed for %s; when rendering without a cluster pass --api-versions %s or set checkApis to false" $api $why $api)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.validate.groups" -}}
{{- $v := .root.Values -}}
{{- if and (not $v.pools) $v.serve.config -}}
{{- include "skyreels.bad" (dict "found" .found "say" "pools is empty: name at least one worker group") -}}
{{- end -}}
{{- if and $v.kueue.queueName (gt (len $v.pools) 17) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "pools has %d worker groups; Kueue takes at most 17" (len $v.pools))) -}}
{{- end -}}
{{- $orders := dict -}}
{{- range $name, $g := $v.pools -}}
{{- $say := list -}}
{{- $min := int64 (ternary 1 $g.min (kindIs "invalid" $g.min)) -}}
{{- $max := int64 ($g.max | default 1) -}}
{{- $gpus := int64 ($g.gpus | default 0) -}}
{{- $hosts := int64 ($g.hostsPerReplica | default 1) -}}
{{- $order := int64 ($g.order | default 0) | toString -}}
{{- if gt (len $name) 30 -}}{{- $say = append $say (printf "its name has %d characters; at most 30 fit into the names of its pods" (len $name)) -}}{{- end -}}
{{- if eq $name "head" -}}{{- $say = append $say "its name is that of the head" -}}{{- end -}}
{{- if hasKey $orders $order -}}{{- $say = append $say (printf "its order %s is also that of %s; give each its own, a new one the highest" $order (index $orders $order)) -}}{{- end -}}
{{- $_ := set $orders $order $name -}}
{{- if gt $min $max -}}{{- $say = append $say (printf "min %d is above max %d" $min $max) -}}{{- end -}}
{{- if and $gpus (not $g.accelerator) -}}{{- $say = append $say "gpus needs an accelerator" -}}{{- end -}}
{{- if and $g.accelerator (not (hasKey $v.accelerators $g.accelerator)) -}}
{{- $say = append $say (printf "accelerator %q is not among accelerators" $g.accelerator) -}}
{{- else if $g.accelerator -}}
{{- $perNode := int64 ((index $v.accelerators $g.accelerator).perNode | default 8) -}}
{{- if gt $gpus $perNode -}}{{- $say = append $say (printf "a pod of %d GPUs fits on no node of %s, which has %d: use hostsPerReplica" $gpus $g.accelerator $perNode) -}}{{- end -}}
{{- if and (gt $hosts 1) (ne $gpus $perNode) -}}{{- $say = append $say (printf "hosts of a replica are whole nodes, so gpus must be %d, not %d" $perNode $gpus) -}}{{- end -}}
{{- end -}}
{{- if and (gt $hosts 1) (not $gpus) -}}{{- $say = append $say "hostsPerReplica above 1 is for GPU nodes" -}}{{- end -}}
{{- if and $g.fabricTopologyKey (eq $hosts 1) -}}{{- $say = append $say "fabricTopologyKey says where the hosts of a replica are, but it has only one" -}}{{- end -}}
{{- if and $g.fabricTopologyKey (semverCompare "<1.31.0-0" $.root.Capabilities.KubeVersion.Version) -}}{{- $say = append $say (printf "fabricTopologyKey needs matchLabelKeys of Kubernetes 1.31 or newer; this is %s" $.root.Capabilities.KubeVersion.Version) -}}{{- end -}}
{{- if and $g.pdb $g.pdb.enabled (gt (int64 ($g.pdb.minAvailable | default 1)) $min) -}}{{- $say = append $say "pdb.minAvailable is above the number of pods that are ready at min, one of each replica, so no node could ever be drained" -}}{{- end -}}
{{- range $say -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "pools.%s: %s" $name .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.validate.ray" -}}
{{- $v := .root.Values -}}
{{- if and $v.ray.authToken.enabled (semverCompare "<2.52.0" $v.ray.version) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "ray.authToken needs Ray 2.52 or newer; ray.version is %s" $v.ray.version)) -}}
{{- end -}}
{{- with $v.ray.gcsFaultTolerance -}}
{{- if .externalStorageNamespace -}}
{{- include "skyreels.bad" (dict "found" $.found "say" "ray.gcsFaultTolerance.externalStorageNamespace must be empty: during an upgrade two clusters would share one namespace in Redis and destroy each other's state; KubeRay gives each its own") -}}
{{- end -}}
{{- if and .enabled (eq .backend "redis") (not .redisAddress) -}}
{{- include "skyreels.bad" (dict "found" $.found "say" "ray.gcsFaultTolerance.redisAddress is missing: name host and port, or choose backend rocksdb") -}}
{{- end -}}
{{- if and .enabled (eq .backend "rocksdb") .redisAddress -}}
{{- include "skyreels.bad" (dict "found" $.found "say" "ray.gcsFaultTolerance.redisAddress is set, but the backend is rocksdb") -}}
{{- end -}}
{{- end -}}
{{- range concat $v.env (list) -}}
{{- if has .name (list "RAY_REDIS_ADDRESS" "REDIS_PASSWORD" "RAY_external_storage_namespace") -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "env: %s is set by ray.gcsFaultTolerance; KubeRay refuses it as a variable" .name)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.validate.upgrade" -}}
{{- $v := .root.Values -}}
{{- $up := $v.upgrade -}}
{{- if lt (int64 $up.deletionDelaySeconds) (int64 $v.drain.seconds) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "upgrade.deletionDelaySeconds %d is below drain.seconds %d: the old cluster would be deleted while it finishes its jobs" (int64 $up.deletionDelaySeconds) (int64 $v.drain.seconds))) -}}
{{- end -}}
{{- if eq $up.strategy "Incremental" -}}
{{- with $up.incremental -}}
{{- if not .gatewayClassName -}}
{{- include "skyreels.bad" (dict "found" $.found "say" "upgrade.incremental.gatewayClassName is missing") -}}
{{- end -}}
{{- if or (lt (int64 .maxSurgePercent) 1) (gt (int64 .maxSurgePercent) 100) (lt (int64 .stepSizePercent) 1) (gt (int64 .stepSizePercent) (int64 .maxSurgePercent)) (lt (int64 .intervalSeconds) 1) -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "upgrade.incremental: 1 <= stepSizePercent (%d) <= maxSurgePercent (%d) <= 100 and intervalSeconds (%d) >= 1 must hold" (int64 .stepSizePercent) (int64 .maxSurgePercent) (int64 .intervalSeconds))) -}}
{{- end -}}
{{- end -}}
{{- if not $v.autoscaler.enabled -}}
{{- include "skyreels.bad" (dict "found" .found "say" "upgrade.strategy Incremental needs autoscaler.enabled") -}}
{{- end -}}
{{- if or $v.ingress.enabled $v.httpRoute.enabled -}}
{{- include "skyreels.bad" (dict "found" .found "say" "upgrade.strategy Incremental makes a Gateway of its own and no stable Service: switch ingress and httpRoute off") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.validate.models" -}}
{{- $m := .root.Values.models -}}
{{- if eq $m.source "image" -}}
{{- if not $m.image.reference -}}
{{- include "skyreels.bad" (dict "found" .found "say" "models.image.reference is missing") -}}
{{- else if not (contains "@sha256:" $m.image.reference) -}}
{{- include "skyreels.bad" (dict "found" .found "say" "models.image.reference must name a digest (@sha256:…), or pods of one cluster could hold different weights") -}}
{{- end -}}
{{- if semverCompare "<1.35.0-0" .root.Capabilities.KubeVersion.Version -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "models.source image needs image volumes, which Kubernetes has by default from 1.35; this is %s" .root.Capabilities.KubeVersion.Version)) -}}
{{- end -}}
{{- end -}}
{{- if eq $m.source "initDownload" -}}
{{- range $name, $g := .root.Values.pools -}}
{{- if and (ne false $g.models) (gt (mul (int64 ($g.max | default 1)) (int64 ($g.hostsPerReplica | default 1))) 4) -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "models.source initDownload lets each of up to %d pods of %s download all weights; it is for small installations: use pvc, hostCache or image" (mul (int64 ($g.max | default 1)) (int64 ($g.hostsPerReplica | default 1))) $name)) -}}
{{- end -}}
{{- end -}}
{{- if not $m.items -}}
{{- include "skyreels.bad" (dict "found" .found "say" "models.source initDownload needs models.items: what shall be downloaded?") -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "skyreels.validate.edge" -}}
{{- $v := .root.Values -}}
{{- if and $v.ingress.enabled (not $v.ingress.host) -}}
{{- include "skyreels.bad" (dict "found" .found "say" "ingress.host is missing") -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- include "skyreels.bad" (dict "found" .found "say" "httpRoute.parentRefs is missing: name the Gateway") -}}
{{- end -}}
{{- if and $v.serve.config (or $v.ingress.enabled $v.httpRoute.enabled (eq $v.upgrade.strategy "Incremental")) -}}
{{- $args := (first (include "skyreels.serveConfig" .root | fromYaml).applications).args -}}
{{- if ne $args.auth "keys" -}}
{{- include "skyreels.bad" (dict "found" .found "say" "authentication is off, so whoever reaches the Ingress or Gateway may use everything: set site.auth to keys") -}}
{{- end -}}
{{- end -}}
{{- end -}}
