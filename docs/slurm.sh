#!/bin/bash
# A fit that continues by itself over as many jobs as it needs:  sbatch slurm.sh RUN.yaml OUTPUT
#SBATCH --job-name=lstmfit
#SBATCH --ntasks=33
#SBATCH --cpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

# 33 ranks are 32 workers: rank 0 hands out the work. Two minutes before the time limit every rank receives USR1, and the
# fit stops with status 75, to be resumed. --requeue restarts a job that was preempted or whose node failed.
export OMP_NUM_THREADS=1
srun lstmfit fit "$1" -o "$2" --resume
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
