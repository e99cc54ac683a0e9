#!/usr/bin/env bash
# Trains on every host of a TPU slice (Cloud TPU VM, or the nodes of a GKE slice through XPK).
#   scripts/launch/tpu.sh vm  NAME ZONE bridgedepth/l_sf /mnt/shared/runs/l_sf --config.run.fsdp=4
#   scripts/launch/tpu.sh xpk CLUSTER TYPE bridgedepth/l_sf /mnt/shared/runs/l_sf
# The package is installed on the hosts (or in the image, $IMAGE, of xpk), and WORKDIR is on a file system that all see.
set -euo pipefail

if [ "$#" -lt 5 ]; then
  echo "usage: tpu.sh vm NAME ZONE CONFIG WORKDIR [OPTIONS] | tpu.sh xpk CLUSTER TYPE CONFIG WORKDIR [OPTIONS]" >&2
  exit 2
fi
how="$1" first="$2" second="$3"
shift 3
command="bridgedepth train --cluster --config $(printf '%q' "$1") --workdir $(printf '%q' "$2")"
shift 2
for option in "$@"; do
  command+=" $(printf '%q' "$option")"
done

case "$how" in
  vm)
    gcloud compute tpus tpu-vm ssh "$first" --zone "$second" --worker=all --command "$command"
    ;;
  xpk)
    xpk workload create --cluster "$first" --tpu-type "$second" --docker-image "${IMAGE:?the image that has bridgedepth}" \
      --workload "bridgedepth-$(date +%s)" --command "$command"
    ;;
  *)
    echo "$how: expected vm or xpk" >&2
    exit 2
    ;;
esac
