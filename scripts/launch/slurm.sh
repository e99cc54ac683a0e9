#!/usr/bin/env bash
# Trains on GPU nodes of a Slurm cluster: one process a node, all its GPUs; sent again, it goes on where it stopped.
#   sbatch --nodes 2 scripts/launch/slurm.sh bridgedepth/l_sf /shared/runs/l_sf --config.run.fsdp=8
#SBATCH --job-name=bridgedepth
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
set -euo pipefail

if [ "$#" -lt 2 ]; then
  echo "usage: sbatch [--nodes N] slurm.sh CONFIG WORKDIR [--config.KEY=VALUE ...]" >&2
  exit 2
fi
config="$1" workdir="$2"
shift 2

# Slurm sends SIGTERM three minutes before the end: training saves and exits with 0; --requeue starts it again.
srun --kill-on-bad-exit=1 bridgedepth train --cluster --config "$config" --workdir "$workdir" "$@"
