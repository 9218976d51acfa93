import { LorikeetError } from "../errors.ts";
import type { Rank } from "../train/ranks.ts";

/** This process among those that a launcher started together. */
export interface LaunchedRank extends Rank {
  /** Number among the processes of this machine: which GPU is this one's. */
  readonly local: number;
  /** Host and port where rank 0 can be reached. */
  readonly address: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Variables that say a process's rank, the number of processes, and the same on its machine. */
const LAUNCHERS = [
  ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"], // torchrun
  [
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
  ], // Open MPI
  ["PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"], // MPICH, Intel MPI
  ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"], // srun
] as const;

const [FIRST_PORT, PORTS] = [20000, 10000];

/**
 * The rank that the environment of torchrun, Open MPI, MPICH, Intel MPI or Slurm gives this process; undefined when it
 * is alone. `parent` is the process that started this one.
 * @throws LorikeetError `ranks` when the values contradict each other, or rank 0's machine is not known
 */
export function readRank(
  environment: Environment = process.env,
  parent: number = process.ppid,
): LaunchedRank | undefined {
  for (const names of LAUNCHERS) {
    const [rank, size, local, localSize] = names.map((name) => whole(environment[name]));
    if (rank === undefined || size === undefined) continue;
    if (size === 1) return undefined;
    if (rank >= size)
      throw new LorikeetError(
        "ranks",
        `Expected ${names[0]} below ${names[1]} (${size}), got ${rank}`,
        { hint: "Unset both variables, or start the processes with torchrun, mpirun or srun." },
      );
    const isHere = localSize === size;
    const address = addressOf(environment, isHere, parent);
    return { rank, size, local: local ?? rank, address };
  }
  return undefined;
}

/** The leading whole number of `text` ("2(x3)" is Slurm's 2 on each of 3 machines). */
function whole(text: string | undefined): number | undefined {
  const digits = /^\d+/.exec(text ?? "")?.[0];
  return digits === undefined ? undefined : Number(digits);
}

function addressOf(environment: Environment, isHere: boolean, parent: number): string {
  const given = environment["NCCL_COMM_ID"];
  if (given !== undefined) return given;
  const host =
    environment["MASTER_ADDR"] ?? (isHere ? "127.0.0.1" : environment["SLURM_LAUNCH_NODE_IPADDR"]);
  if (host === undefined)
    throw new LorikeetError(
      "ranks",
      "Expected to know the machine of rank 0, as there are several",
      {
        hint: "Set MASTER_ADDR to its name or address, and MASTER_PORT to a free port there.",
      },
    );
  const port = whole(environment["MASTER_PORT"]);
  // torchrun's own store listens on its port
  if (port !== undefined) return `${host}:${port + 1}`;
  const job = whole(environment["SLURM_JOB_ID"]) ?? whole(environment["OMPI_MCA_ess_base_jobid"]);
  return `${host}:${FIRST_PORT + ((job ?? parent) % PORTS)}`;
}
