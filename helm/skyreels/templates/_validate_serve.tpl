{{/* Whether the worker groups can hold the Serve config. */}}
{{- define "skyreels.validate.serve" -}}
{{- $v := .root.Values -}}
{{- if not $v.serve.config -}}
{{- include "skyreels.bad" (dict "found" .found "say" "serve.config is empty: install with a profile, as in -f profiles/dev-cpu.yaml, or with what `skyreels helm-values` prints") -}}
{{- else -}}
{{- $config := include "skyreels.serveConfig" .root | fromYaml -}}
{{- if or (ne (int64 ($config.http_options.port | default 8000)) 8000) (ne ($config.http_options.host | default "127.0.0.1") "0.0.0.0") -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "serve.config listens on %s:%d; KubeRay asks port 8000 of the pod's address whether a worker is ready: set api.host 0.0.0.0 and api.port 8000 in the configuration" ($config.http_options.host | default "127.0.0.1") (int64 ($config.http_options.port | default 8000)))) -}}
{{- end -}}
{{- $used := dict -}}
{{- range $app := $config.applications -}}
{{- range $d := $app.deployments -}}
{{- include "skyreels.validate.deployment" (dict "root" $.root "found" $.found "used" $used "d" $d) -}}
{{- end -}}
{{- range $app.args.pools -}}
{{- include "skyreels.validate.usp" (dict "found" $.found "heads" $v.serve.attentionHeads "pool" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $g := $v.pools -}}
{{- $pods := mul (int64 ($g.max | default 1)) (int64 ($g.hostsPerReplica | default 1)) -}}
{{- $sum := index $used $name | default (dict "gpus" 0 "cpus" 0 "who" list) -}}
{{- $gpus := mul $pods (int64 ($g.gpus | default 0)) -}}
{{- if gt (float64 $sum.gpus) (addf (float64 $gpus) 0.001) -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "pools.%s: %s ask for up to %v GPUs, but max %d has only %d: raise max or lower the replicas" $name (join ", " $sum.who) $sum.gpus (int64 ($g.max | default 1)) $gpus)) -}}
{{- end -}}
{{- $cpus := mulf (float64 $pods) (float64 ($g.cpus | default 4)) -}}
{{- if gt (float64 $sum.cpus) (addf $cpus 0.001) -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "pools.%s: %s ask for up to %v CPUs, but max %d has only %v: raise max or cpus" $name (join ", " $sum.who) $sum.cpus (int64 ($g.max | default 1)) $cpus)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* One deployment: its group exists, one pod holds one of its replicas; adds what all of them need to `used`. */}}
{{- define "skyreels.validate.deployment" -}}
{{- $v := .root.Values -}}
{{- $d := .d -}}
{{- $actor := $d.ray_actor_options | default dict -}}
{{- $labels := $actor.label_selector | default (first ($d.placement_group_bundle_label_selector | default (list dict))) -}}
{{- $name := index $labels "skyreels.ai/pool" | default "" -}}
{{- if gt (float64 ($d.graceful_shutdown_timeout_s | default 20)) (float64 $v.drain.seconds) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "drain.seconds %d is below the %v s that %s takes to stop" (int64 $v.drain.seconds) $d.graceful_shutdown_timeout_s $d.name)) -}}
{{- end -}}
{{- if and $name (not (hasKey ($v.pools | default dict) $name)) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "%s asks for worker group %q, which pools does not have: it would wait for ever" $d.name $name)) -}}
{{- else if $name -}}
{{- $g := index $v.pools $name -}}
{{- $podGpus := float64 ($g.gpus | default 0) -}}
{{- $podCpus := float64 ($g.cpus | default 4) -}}
{{- $hosts := int64 ($g.hostsPerReplica | default 1) -}}
{{- $bundles := $d.placement_group_bundles | default (list (dict "CPU" ($actor.num_cpus | default 0) "GPU" ($actor.num_gpus | default 0))) -}}
{{- $gpus := 0.0 -}}{{- $cpus := 0.0 -}}{{- $most := dict "GPU" 0.0 "CPU" 0.0 -}}
{{- range $bundles -}}
{{- $gpus = addf $gpus (.GPU | default 0) -}}
{{- $cpus = addf $cpus (.CPU | default 0) -}}
{{- $most = dict "GPU" (maxf $most.GPU (.GPU | default 0)) "CPU" (maxf $most.CPU (.CPU | default 0)) -}}
{{- end -}}
{{- if eq ($d.placement_group_strategy | default "PACK") "STRICT_SPREAD" -}}
{{- if ne (len $bundles) (int $hosts) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "%s spreads over %d nodes, but a replica of pools.%s has %d: set hostsPerReplica %d" $d.name (len $bundles) $name $hosts (len $bundles))) -}}
{{- end -}}
{{- if or (ne $most.GPU $podGpus) (gt $most.CPU $podCpus) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "%s needs %v GPUs and %v CPUs of each node, but a pod of pools.%s has %v and %v: the GPUs must be equal, the CPUs enough" $d.name $most.GPU $most.CPU $name $podGpus $podCpus)) -}}
{{- end -}}
{{- else -}}
{{- if gt $hosts 1 -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "%s works on one node, but replicas of pools.%s are %d nodes: set hosts in the configuration or hostsPerReplica 1" $d.name $name $hosts)) -}}
{{- end -}}
{{- if or (gt $gpus (addf $podGpus 0.001)) (gt $cpus (addf $podCpus 0.001)) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "a replica of %s needs %v GPUs and %v CPUs in one pod, but a pod of pools.%s has %v and %v" $d.name $gpus $cpus $name $podGpus $podCpus)) -}}
{{- end -}}
{{- end -}}
{{- $auto := $d.autoscaling_config | default dict -}}
{{- $replicas := float64 ($auto.max_replicas | default $d.num_replicas | default 1) -}}
{{- $sum := index .used $name | default (dict "gpus" 0.0 "cpus" 0.0 "who" list) -}}
{{- $_ := set .used $name (dict "gpus" (addf $sum.gpus (mulf $replicas $gpus)) "cpus" (addf $sum.cpus (mulf $replicas $cpus)) "who" (append $sum.who $d.name)) -}}
{{- end -}}
{{- end -}}

{{/* The ranks of a denoiser: branches x Ulysses x ring, and heads that Ulysses divides. */}}
{{- define "skyreels.validate.usp" -}}
{{- $pool := .pool -}}
{{- $ranks := int64 ($pool.ranks | default 1) -}}
{{- if and (has "denoise" ($pool.stages | default list)) (gt $ranks 1) -}}
{{- $size := div $ranks (int64 ($pool.branches | default 1)) -}}
{{- $ulysses := int64 ($pool.ulysses | default (ternary (div $size (int64 ($pool.ring | default 1))) 1 (not (not $pool.ring)))) -}}
{{- if mod $size $ulysses -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "%s: Ulysses %d does not divide the %d ranks of a group" $pool.name $ulysses $size)) -}}
{{- end -}}
{{- range .heads -}}
{{- if mod (int64 .) $ulysses -}}
{{- include "skyreels.bad" (dict "found" $.found "say" (printf "%s: Ulysses %d does not divide the model's %d attention heads: choose a factor that does and leave the rest to ring" $pool.name $ulysses (int64 .))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Files as stores are for one pod. */}}
{{- define "skyreels.validate.stores" -}}
{{- $v := .root.Values -}}
{{- $pods := 0 -}}
{{- range $v.pools -}}
{{- $pods = add $pods (mul (int64 (.max | default 1)) (int64 (.hostsPerReplica | default 1))) -}}
{{- end -}}
{{- if $v.serve.config -}}
{{- $args := (first (include "skyreels.serveConfig" .root | fromYaml).applications).args -}}
{{- $url := $args.store.url | default "sqlite" -}}
{{- $root := $args.artifacts.root | default "" -}}
{{- if regexMatch "//[^/@]*:[^/@]*@" $url -}}
{{- include "skyreels.bad" (dict "found" .found "say" "store.url holds a password, which everybody who may read the RayService would see: put it into a Secret and name that in jobStore.existingSecret") -}}
{{- end -}}
{{- if gt $pods 1 -}}
{{- if hasPrefix "sqlite" $url -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "the job store is a file, but up to %d pods would share it: set site.store.url to a PostgreSQL database" $pods)) -}}
{{- end -}}
{{- if not (regexMatch "^(s3|gs)://" $root) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "artifacts lie in a local folder, but up to %d pods would share it: set site.artifacts.root to a bucket" $pods)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.state.persistent (ne $args.state_dir $v.state.path) -}}
{{- include "skyreels.bad" (dict "found" .found "say" (printf "state.path %s is not the configuration's state_dir %s" $v.state.path $args.state_dir)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
