#!/bin/bash
# A fit that goes on by itself, over as many jobs as it takes:  sbatch slurm.sh RUN.yaml OUTPUT
#SBATCH --job-name=lstmfit
#SBATCH --ntasks=33
#SBATCH --cpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

# 33 ranks are 32 workers: rank 0 hands out the work. USR1 comes to every rank two minutes before the limit and has the
# fit stop with status 75, to be resumed; --requeue brings a job back whose node died or that was preempted.
export OMP_NUM_THREADS=1
srun lstmfit fit "$1" -o "$2" --resume
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
